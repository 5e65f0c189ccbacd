/* return.pml: an owner gives arena units back while it lives (RETURN), K gives them on, S takes the pages in between; EXPEL.
 *
 * One unit. b: a block in it that R may read, with the number of the life that wrote it; z: any other word of the unit's owner
 * (a block it never published, the sealed word: 9). backed: S's, the unit has memory; punched it reads as 0.
 * tab: the arena table's word. Two owners ask in turn, O1 is given what O0 gave back, and O0 once more.
 * O: ASK; ARENA: stores, some of them streaming; PUT (b is K's to free now); FREE taken: sealed = 0; RETURN, and nothing after it.
 * K: counts R's grants; none left: FREE. RETURN: of its sender, and nothing live by K's table: table word 0, PUNCH. Else EXPEL.
 *    ASK: COMMIT; COMMITTED: table word, ARENA. Dead: drain; what is live stays until R gave it back; then as if returned.
 * S: COMMIT and PUNCH in the order of the ring. EXPEL: ends that process; K moves memory when it is dead and not before.
 * O0, O1 and R may die at any step.
 *
 * Knobs: ARG: b is named by a bundle of O's that lies elsewhere, so K's table knows nothing in the unit; FREE is FORGOT then.
 *        LEAVES: O0 may leave in order, also in the middle of things: for K that is a death.
 *        EXPEL: O0 broke a rule elsewhere, K says so at any moment.
 *        BROKEN: O0 also returns before FREE, or a second time: K finds it out, and nobody else is harmed.
 * Removed rules:
 *   LATE_STORE      the sealed word is stored after RETURN
 *   LEFT_FIRST      (with LEAVES) a thread of O0 stores once more after O0 said that it left
 *   NO_SFENCE       a streaming store is not fenced before the next message
 *   BLIND           (with BROKEN) K does not look whether something is live there
 *   NO_OWNER        (with BROKEN) K does not look whose it is
 *   ARG             (with BROKEN) an owner returns arguments before FORGOT: K cannot find that out
 *   TAKE_AT_DEATH   (with ARG) K takes a dead client's unit although its bundle is not gone
 *   EXPEL_FREES     (with EXPEL) K takes the unit when it says EXPEL
 *   PUNCH_LATE      K says PUNCH when it has given the unit on
 *   REORDER         S does what was asked last before what was asked first
 *   NO_WAIT         K gives the unit before S said COMMITTED
 *   ARENA_FIRST     ARENA before the word in the table
 *   NO_CLEAR        the table's word stays
 */
#ifndef LIVES
#define LIVES 2                 /* how often K gives the unit, in all */
#endif
#define RD 2
mtype = { ASK, ARENA, PUT, FREE, RETURN, GRANT, COMMIT, COMMITTED, PUNCH, EXPELX, TAB, LEFT, Z };

chan ok0 = [2] of { mtype }; chan ok1 = [2] of { mtype };                 /* rings O -> K */
chan ko0 = [2] of { mtype, byte }; chan ko1 = [2] of { mtype, byte };     /* rings K -> O */
chan kr = [1] of { byte }; chan rk = [1] of { bit };                      /* GRANT of a life's b; REL */
chan ks = [4] of { mtype, byte }; chan sk = [1] of { bit };               /* K -> S; COMMITTED */
chan sb0 = [4] of { mtype, byte }; chan sb1 = [4] of { mtype, byte };     /* store buffers */
chan nt0 = [1] of { byte }; chan nt1 = [1] of { byte };                   /* streaming stores: in no order with the others */
chan ksb = [7] of { mtype, byte, byte };                                  /* of K: message or word, to whom, what */

byte b, z, tab;
bit  backed, killed[3], dead[3];
byte unit;                      /* K's heap: whose, 1+w; 0 nobody's */

#define MAY_STORE(w) assert(unit == 1+w && backed)
proctype Flush(byte w; chan sb; chan nt; chan k) {
  mtype m; byte x;
end: do
  :: atomic { nt?[x] -> nt?x; MAY_STORE(w); b = x; x = 0 }
  :: atomic { sb?[Z,x] -> sb?m,x; MAY_STORE(w); z = x; m = 0; x = 0 }
  :: atomic { sb?[LEFT,_] -> sb?m,x; dead[w] = 1; m = 0; x = 0 }
  :: atomic { nempty(sb) && !sb?[Z,_] && !sb?[LEFT,_] && nfull(k) -> sb?m,x; k!m; m = 0; x = 0 }
  od
}
proctype FlushK() {
  mtype m; byte to, x;
end: do
  :: atomic { ksb?[TAB,_,_] -> ksb?m,to,x; tab = x; m = 0; to = 0; x = 0 }
  :: atomic { ksb?[GRANT,_,_] && nfull(kr) -> ksb?m,to,x; kr!x; m = 0; to = 0; x = 0 }
  :: atomic { (ksb?[ARENA,eval(0),_] || ksb?[FREE,eval(0),_]) && nfull(ko0) -> ksb?m,to,x; ko0!m,x; m = 0; to = 0; x = 0 }
  :: atomic { (ksb?[ARENA,eval(1),_] || ksb?[FREE,eval(1),_]) && nfull(ko1) -> ksb?m,to,x; ko1!m,x; m = 0; to = 0; x = 0 }
  :: atomic { (ksb?[COMMIT,_,_] || ksb?[PUNCH,_,_] || ksb?[EXPELX,_,_]) && nfull(ks) -> ksb?m,to,x; ks!m,x; m = 0; to = 0; x = 0 }
  od
}

#define NOTHING 0
#define ASKED 1
#define GIVEN 2
#define WROTE 3
#define TOLD 4
#define GOT_BACK 5
proctype O(byte w; chan in; chan sb; chan nt; chan out) {
  byte at, life, x; bit twice;
  {
end: do
  :: atomic { at == NOTHING && nfull(sb) -> sb!ASK,0; at = ASKED }
  :: atomic { in?[ARENA,x] -> in?ARENA,life; assert(tab == 1+w); at = GIVEN }
  :: atomic { in?[FREE,x] -> in?FREE,x; if :: x == life && at == TOLD -> at = GOT_BACK :: else -> skip fi; x = 0 }
  :: at == GIVEN -> sb!Z,life; nt!life;
#ifndef NO_SFENCE
     empty(nt);
#endif
     at = WROTE
  :: at == WROTE -> sb!PUT,0; at = TOLD
  :: at == WROTE -> at = GOT_BACK                            /* never published: its own to free */
  :: atomic { at == WROTE && empty(sb) && empty(nt) -> assert(backed && b == life && z == life) }
  :: at == GOT_BACK ->
#ifdef LATE_STORE
     sb!RETURN,0; sb!Z,9;
#else
     sb!Z,9; sb!RETURN,0;
#endif
     atomic { at = NOTHING; life = 0 }
#ifdef LEAVES
  :: w == 0 && (at == WROTE || at == TOLD) ->
#ifdef LEFT_FIRST
     sb!LEFT,0; sb!Z,life;
#else
     sb!Z,life; sb!LEFT,0;
#endif
     break
#endif
#ifdef BROKEN
  :: atomic { w == 0 && at == TOLD && nfull(sb) -> sb!RETURN,0; at = NOTHING; life = 0 }
  :: atomic { w == 0 && at == NOTHING && !twice && nfull(sb) -> sb!RETURN,0; twice = 1 }
#endif
  od
  } unless { killed[w] }
}
proctype R() {
  byte life;
  {
end: do
  :: atomic { life == 0 && kr?[life] -> kr?life }
  :: atomic { life -> assert(backed && b == life) }
  :: atomic { life && nfull(rk) -> rk!1; life = 0 }          /* a load is done before the store that gives back (M2) */
  od
  } unless { killed[RD] }
}

byte pend, lives, out;                                       /* K's heap: who asked; how often given; R's grants */
bit  live, granted, gone[3], expelled[2];
#ifdef ARG
#define IN_TABLE 0
#else
#define IN_TABLE live
#endif
#ifdef BLIND
#define CLEAR 1
#else
#define CLEAR (!IN_TABLE)
#endif
#ifdef NO_OWNER
#define ITS(w) (unit)
#else
#define ITS(w) (unit == 1+w)
#endif
#ifdef TAKE_AT_DEATH
#define STAYS IN_TABLE
#else
#define STAYS live
#endif
#ifdef PUNCH_LATE
bit owed;
#endif

inline take() {
  unit = 0;
#ifndef NO_CLEAR
  ksb!TAB,0,0;
#endif
#ifdef PUNCH_LATE
  owed = 1
#else
  ksb!PUNCH,0,0
#endif
}
inline expel(w) {
#if !defined(BROKEN) && !defined(EXPEL)
  assert(false);                                             /* nobody who keeps the rules is expelled */
#endif
  expelled[w] = 1; ksb!EXPELX,0,w;
#ifdef EXPEL_FREES
  if :: unit == 1+w && !live -> take() :: else -> skip fi
#endif
}
inline give(w) {
  lives++; unit = 1+w; granted = 0;
#ifdef ARENA_FIRST
  ksb!ARENA,w,lives; ksb!TAB,0,1+w
#else
  ksb!TAB,0,1+w; ksb!ARENA,w,lives
#endif
}
inline handle(w, ring) {
  if
  :: ring?ASK ->
     pend = 1+w; ksb!COMMIT,0,0;
#ifdef NO_WAIT
     give(w)
#endif
  :: ring?PUT -> if :: unit == 1+w && !live -> live = 1 :: else -> expel(w) fi
  :: ring?RETURN -> if :: ITS(w) && CLEAR -> take() :: else -> expel(w) fi
  fi
}
#define READY (len(ksb) < 3)
#define ASK_LATER(ring) (ring?[ASK] && (unit || live || pend || lives == LIVES))
proctype K() {
  mtype m;
end: do
  :: atomic { READY && nempty(ok0) && !ASK_LATER(ok0) && !expelled[0] && !gone[0] -> handle(0, ok0) }
  :: atomic { READY && nempty(ok1) && !ASK_LATER(ok1) && !expelled[1] && !gone[1] -> handle(1, ok1) }
  :: atomic { expelled[0] && ok0?[m] -> ok0?m; m = 0 }       /* its rings are ignored */
  :: atomic { READY && sk?[1] -> sk?1;
#ifdef NO_WAIT
              pend = 0
#else
              if :: gone[pend-1] -> take() :: else -> give(pend-1) fi; pend = 0
#endif
#ifdef PUNCH_LATE
              ; if :: owed -> owed = 0; ksb!PUNCH,0,0 :: else -> skip fi
#endif
     }
  :: atomic { READY && live && !granted && !gone[RD] -> granted = 1; out++; ksb!GRANT,0,lives }
  :: atomic { nempty(rk) -> rk?1; out-- }
  :: atomic { READY && live && out == 0 -> live = 0; granted = 1;
              if :: unit && !gone[unit-1] -> ksb!FREE,(unit-1),lives :: else -> skip fi }
  :: atomic { dead[0] && !gone[0] && (empty(ok0) || ok0?[ASK]) -> gone[0] = 1 }      /* drained */
  :: atomic { dead[1] && !gone[1] && (empty(ok1) || ok1?[ASK]) -> gone[1] = 1 }
  :: atomic { dead[RD] && !gone[RD] && empty(rk) -> gone[RD] = 1; out = 0 }
  :: atomic { READY && unit && gone[unit-1] && !STAYS -> take() }
#ifdef EXPEL
  :: atomic { READY && !expelled[0] && !gone[0] -> expel(0) }
#endif
  od
}
proctype S() {
  mtype m; byte x;
end: do
#ifdef REORDER
  :: atomic { ks??[COMMIT,0] && nfull(sk) -> ks??COMMIT,0; backed = 1; sk!1 }
#endif
  :: atomic { ks?[COMMIT,_] && nfull(sk) -> ks?m,x; backed = 1; sk!1; m = 0; x = 0 }
  :: atomic { ks?[PUNCH,_] -> ks?m,x; backed = 0; b = 0; z = 0; m = 0; x = 0 }
  :: atomic { ks?[EXPELX,_] -> ks?m,x; killed[x] = 1; m = 0; x = 0 }
  od
}
chan none = [1] of { byte }; chan nosb = [1] of { mtype, byte };
proctype Death(byte id; chan sb; chan nt) {
  if :: killed[id] = 1 :: skip fi;
end: killed[id];
  empty(sb) && empty(nt) -> dead[id] = 1
}
init {
  atomic {
    run Flush(0, sb0, nt0, ok0); run Flush(1, sb1, nt1, ok1); run FlushK();
    run O(0, ko0, sb0, nt0, ok0); run O(1, ko1, sb1, nt1, ok1); run R(); run K(); run S();
    run Death(0, sb0, nt0);
#ifndef ONE_DIES
    run Death(1, sb1, nt1); run Death(RD, nosb, none)
#endif
  };
  (timeout) -> assert(unit == 0 && !backed && tab == 0)      /* all of it came back, the dead's too */
}
