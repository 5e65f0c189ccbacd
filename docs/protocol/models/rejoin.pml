/* rejoin.pml: a slot is used again by a new incarnation, whose rings go on where its ancestor's stand (R1, R6; A1: the slot comes last).
 *
 * One slot, E's, in incarnations 1..LIVES, one after the other; each leaves in order or is killed, at any step. Uplink: up[], tail (E),
 * uhead (K; S's while nobody reads it). K's ring to the slot: down[], ktail, reader, start (K), khead (E). A message is the number of
 * the incarnation that it is from, or for. e_inc, e_left: e_state. cur: it is in an item; read after death (B11). dir: which keeper
 * was told of the uplink. over: S's word, or its neighbour's (D2).
 * E: clears what its ancestor left; e_state; dir; waits until reader is itself; reads from start on, and publishes only now.
 * K: newcomer: reads from uhead on; start, then reader. Over: drains, looks at e_state and cur, drops what waited for room (R5),
 *    RETIRE; RETIRE also of one that was over before K welcomed it.
 * S: over; waits for RETIRE if dir was told to the keeper that lives; uhead = tail; the next incarnation.
 *
 * Knobs: GUEST: the processes of a VM share out the slot without S; K stores reader = 0 in place of RETIRE, and the next one waits for that.
 *        KDIES: K dies at any step, another is appointed, which has a ring of its own to the slot.
 *        MAIL: only mail that is taken is looked at, not cur, e_state, or what nobody took.
 * Removed rules:
 *   SLOT_EARLY       the slot is given as soon as its endpoint is over; no mail is mixed even then (with MAIL it holds), but for
 *   PUBLISH_EARLY    (with SLOT_EARLY, MAIL) E publishes before it is welcomed
 *   NO_READER        E takes the ring that it finds, whomever it is for
 *   READER_FIRST     K stores reader before start
 *   AT_HEAD          E reads from khead on
 *   KEEP_WAITING     what waited for room is published to the next incarnation
 *   NO_SKIP          (with KDIES) S leaves uhead as it is
 *   WELCOMED_ONLY    no RETIRE of one that K never welcomed (no progress)
 */
#ifndef LIVES
#define LIVES 2
#endif
#ifndef M
#define M 2                            /* messages of each incarnation, and of K to each */
#endif
#define ALL 6                          /* LIVES * M at most */
mtype = { UP, CUR, DIR, INC, LEFT, KHEAD, DOWN, START, READER, UHEAD, RETIRE };
chan sb = [4] of { mtype, byte };      /* store buffer of E: its incarnations do not overlap */
chan ksb = [4] of { mtype, byte };     /* of the keeper */

byte up[ALL], tail, uhead;
byte down[ALL], ktail, reader, start, khead;
byte e_inc, dir, over, retired, given = 1, epoch = 1;
bit  e_left, cur, killed, kkilled;
byte ended;                            /* what D2 rests on: this one is gone, its last store has landed */
bit  was_in[LIVES+1], went[LIVES+1];   /* what K must see in cur and e_state of one that was welcomed */

proctype Flush() {
  mtype m; byte x;
end: do
  :: atomic { sb?m,x ->
       if
       :: m == UP -> up[tail] = x; tail++
       :: m == CUR -> cur = x
       :: m == DIR -> dir = x
       :: m == INC -> e_inc = x; e_left = 0
       :: m == LEFT -> e_left = 1
       :: m == KHEAD -> khead = x
       fi; m = 0; x = 0 }
  od
}
proctype FlushK() {
  mtype m; byte x;
end: do
  :: atomic { ksb?m,x ->
       if
       :: m == DOWN -> down[ktail] = x; ktail++
       :: m == START -> start = x
       :: m == READER -> reader = x
       :: m == UHEAD -> uhead = x
       :: m == RETIRE -> retired = x
       fi; m = 0; x = 0 }
  od
}
proctype E() {
  byte i, h, n, at; bit in, bye;
  do
  :: i < LIVES ->
end: given == i + 1;
     i++;
     {
       sb!CUR,0; sb!DIR,0; sb!INC,i; at = epoch;
#ifdef PUBLISH_EARLY
       sb!UP,i; n++;
#endif
       sb!DIR,at;
       if
#if defined(NO_READER)
       :: atomic { at == epoch && reader -> h = start; in = 1 }
#elif defined(AT_HEAD)
       :: atomic { at == epoch && reader == i -> h = khead; in = 1 }
#else
       :: atomic { at == epoch && reader == i -> h = start; in = 1 }
#endif
       :: skip                                               /* it does not wait for ever */
       fi;
       do
       :: atomic { in && n < M && nfull(sb) -> n++; sb!UP,i }
       :: atomic { in && at == epoch && ktail > h && nfull(sb) -> assert(down[h] == i); h++; sb!KHEAD,h }
       :: atomic { in && !was_in[i] && nfull(sb) -> was_in[i] = 1; sb!CUR,1 }
       :: break
       od;
       atomic { nfull(sb) -> sb!LEFT,0; bye = 1 }
     } unless { killed };
     atomic { empty(sb) -> went[i] = bye && in; ended = i; killed = 0; h = 0; n = 0; at = 0; in = 0; bye = 0 }
  :: else -> break
  od
}
proctype S() {
  byte owed;
  do
  :: given < LIVES ->
end: atomic { ended == given -> over = ended };
#ifdef GUEST
#ifndef SLOT_EARLY
     (reader != given || dir != epoch);                      /* its keeper has handled the end, never knew it, or is dead */
#endif
#else
     atomic { if :: dir == epoch && e_inc == given -> owed = epoch :: else -> owed = 0 fi };
#ifndef SLOT_EARLY
     (owed == 0 || retired == given || owed != epoch);
#endif
#if !defined(KDIES) && !defined(SLOT_EARLY) && !defined(MAIL)
     assert(uhead == tail);                                  /* nobody's mail is skipped */
#endif
#ifndef NO_SKIP
     uhead = tail;
#endif
#endif
     given++
  :: else -> atomic { ended == given -> over = ended }; break
  od
}
#define GONE (over >= at || e_inc != at || e_left)
proctype K() {
  byte at, h, kt, n, wait, told;
end_again:
  {
end: do
  :: atomic { at == 0 && empty(ksb) && dir == epoch && e_inc && over < e_inc && !e_left ->
              at = e_inc; h = uhead; n = 0;
#ifdef READER_FIRST
              ksb!READER,at; ksb!START,kt
#else
              ksb!START,kt; ksb!READER,at
#endif
     }
  :: atomic { at && tail > h && nfull(ksb) -> assert(up[h] == at); h++; ksb!UHEAD,h }
  :: atomic { at && n < M && nfull(ksb) -> n++; kt++; ksb!DOWN,at }
  :: atomic { at && n < M && !wait -> n++; wait = at }
  :: atomic { at && wait && nfull(ksb) -> kt++; ksb!DOWN,wait; wait = 0 }
  :: atomic { at && GONE && tail == h && nfull(ksb) ->       /* over was loaded first: this tail is final */
#ifndef MAIL
              assert(!was_in[at] || cur); assert(!went[at] || (e_inc == at && e_left));
#endif
#ifndef KEEP_WAITING
              wait = 0;
#endif
#ifdef GUEST
              ksb!READER,0;
#else
              ksb!RETIRE,at;
#endif
              told = at; at = 0 }
#if !defined(WELCOMED_ONLY) && !defined(GUEST)
  :: atomic { at == 0 && dir == epoch && e_inc > told && over >= e_inc && nfull(ksb) -> told = e_inc; ksb!RETIRE,told }
#endif
  od
  } unless { kkilled };
  atomic { empty(ksb) -> kkilled = 0; epoch++; at = 0; h = 0; kt = 0; n = 0; wait = 0; told = 0;
           ktail = 0; reader = 0; start = 0; khead = 0; d_step { down[0] = 0; down[1] = 0; down[2] = 0; down[3] = 0 } };
  goto end_again
}
proctype Kill() {
  do
  :: atomic { !killed && ended < given -> killed = 1 }
  :: break
  od
}
init {
  atomic { run Flush(); run FlushK(); run E(); run S(); run K(); run Kill() };
#ifdef KDIES
  if :: kkilled = 1 :: skip fi;
#endif
  (timeout) -> assert(ended == LIVES)                        /* the slot was given again, each time */
#if !defined(KDIES) && !defined(MAIL)
  ; assert(uhead == tail)                                    /* and nothing was lost */
#endif
}
