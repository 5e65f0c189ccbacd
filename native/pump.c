/* The pump (decision 13): a thread that needs no GIL to beat the heartbeat, read the server's notices, keep rings drained,
 * and give back what waits behind a long item (B7). While a Python thread waits, that thread has the bell; when none has
 * waited for 2 ms, the pump takes it over. It takes the GIL only to call back, when an urgent message came and nobody waits.
 *
 * D4: it compares the incarnation in the state table with ours at each turn.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "endpoint.h"

#define TICK_NS 2000000ull
#define TURN_MS 250
#define RETRY_MS 1

void pump_arm(Endpoint *e)
{
    if (!e->pumping || e->armed)
        return;
    struct itimerspec t = {{0, 0}, {0, (long)TICK_NS}};
    e->armed = timerfd_settime(e->timer, 0, &t, NULL) == 0;
}

static void beat(Endpoint *e)
{
    char *beat = e->words + NC_SLOT_AT_HEARTBEAT;
    store_release(beat, load_relaxed(beat) + 1);
    store_relaxed(e->words + NC_SLOT_AT_RINGS, e->rings);
    store_relaxed(e->words + NC_SLOT_AT_WAKES, e->wakes);
    store_relaxed(e->words + NC_SLOT_AT_RESCUES, e->rescues);
    store_relaxed(e->words + NC_SLOT_AT_SLEEPS, e->sleeps);
    u64 state = load_acquire(e->words + NC_SLOT_AT_S_STATE);
    if ((state & 255) == NC_STATE_DEAD || ((state & 255) == NC_STATE_JOINED && state >> 8 != e->incarnation))
        e->expelled = 1;
}

static void say(Endpoint *e, u64 kind, u64 bundle, u64 generation, u64 range_id, u64 at)
{
    u64 w[NC_DESCRIPTOR_WORDS] = {kind, bundle, generation, range_id, at};
    endpoint_send(e, e->keeper, w);
}

/* B7: limit = next first, BACK then; what was granted in advance and not begun goes back at the same time. */
static int give_back(Endpoint *e)
{
    u64 now = now_ns();
    int running = 0;
    int backed = 0;
    for (u64 k = 0; k < NC_CONTROL_THREAD; k++) {
        Running *r = &e->running[k];
        u64 began = atomic_load_explicit(&r->began_ns, memory_order_acquire);
        if (!began)
            continue;
        running = 1;
        if (!r->backed && now - began >= TICK_NS) {
            r->backed = 1;
            say(e, NC_MSG_BACK, r->bundle, r->generation, r->range_id, running_limit(r));
        }
        backed |= r->backed;
    }
    Message m;
    while (backed && queue_pop(&e->granted, &m))
        say(e, NC_MSG_DONE, m.w[1], m.w[2], m.w[3], m.w[4]);
    return running && !backed;
}

static int is_urgent(Endpoint *e)
{
    if (!e->callback || e->waiters)
        return 0;
    if (e->errand) {
        e->errand = 0;
        return 1;
    }
    for (u64 i = e->inbox.first; i < e->inbox.next; i++) {
        u64 kind = e->inbox.at[i & (e->inbox.room - 1)].w[0] & 0xffff;
        if (kind < 64 && (e->urgent >> kind & 1))
            return 1;
    }
    return 0;
}

static int any_waiting_out(Endpoint *e)
{
    for (u64 i = 0; i < e->n_out; i++) {
        if (e->out[i].open && queue_length(&e->out[i].waiting))
            return 1;
    }
    return 0;
}

static void call_back(Endpoint *e)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *callback = e->callback;
    if (callback) {
        Py_INCREF(callback);
        PyObject *result = PyObject_CallNoArgs(callback);
        if (!result)
            PyErr_WriteUnraisable(callback);
        Py_XDECREF(result);
        Py_DECREF(callback);
    }
    PyGILState_Release(state);
}

/* Block until something is there for the pump; `lock` held on entry and exit. */
static void pump_block(Endpoint *e, int timeout_ms)
{
    struct pollfd fds[5] = {
        {e->poke, POLLIN, 0},
        {e->timer, POLLIN, 0},
        {e->doors.server_gone ? -1 : e->doors.notices, POLLIN, 0},
        {e->lifeline, POLLIN, 0},
        {e->at_bell ? e->doors.bell : -1, POLLIN, 0},
    };
    if (e->at_bell)
        sleep_begin(e);
    int mail = 0;
    for (u64 i = 0; e->at_bell && i < e->n_in; i++)
        mail |= ring_has_mail(&e->in[i]);
    pthread_mutex_unlock(&e->lock);
    poll(fds, 5, mail ? 0 : timeout_ms);
    if (fds[3].revents & (POLLHUP | POLLERR | POLLIN))
        _exit(0); /* the parent is gone: nobody is left to work for */
    if (fds[0].revents & POLLIN)
        eventfd_empty(e->poke);
    if (fds[1].revents & POLLIN)
        eventfd_empty(e->timer);
    int rang = (fds[4].revents & POLLIN) && bell_consume(e);
    pthread_mutex_lock(&e->lock);
    if (fds[1].revents & POLLIN)
        e->armed = 0;
    if (e->at_bell)
        sleep_end(e);
    if (rang && e->waiters)
        eventfd_signal(e->nudge); /* we took a bell that was meant for it */
}

static void pump_turn(Endpoint *e)
{
    beat(e);
    doors_read_notices(e);
    e->at_bell = !e->waiters && now_ns() - e->busy_since_ns >= TICK_NS / 2;
    if (e->at_bell)
        endpoint_drain(e);
    int tick = give_back(e);
    if (e->at_bell || any_waiting_out(e))
        endpoint_flush(e);
    if (is_urgent(e)) {
        pthread_mutex_unlock(&e->lock);
        call_back(e);
        pthread_mutex_lock(&e->lock);
    }
    if (tick)
        pump_arm(e);
    if (!e->stopping)
        pump_block(e, any_waiting_out(e) ? RETRY_MS : TURN_MS);
}

static void *pump_main(void *endpoint)
{
    Endpoint *e = endpoint;
    pthread_mutex_lock(&e->lock);
    while (!e->stopping)
        pump_turn(e);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int pump_start(Endpoint *e)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for Python's threads */
    e->pumping = 1;
    int rc = pthread_create(&e->pump, NULL, pump_main, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        e->pumping = 0;
    else
        pthread_setname_np(e->pump, "nahanni-pump"); /* for top, debuggers, and who counts what we leave */
    return rc;
}

void pump_stop(Endpoint *e)
{
    if (!e->pumping)
        return;
    PyThreadState *state = PyEval_SaveThread(); /* it may be waiting for the GIL to call back */
    pthread_mutex_lock(&e->lock);
    e->stopping = 1;
    pthread_mutex_unlock(&e->lock);
    eventfd_signal(e->poke);
    if (!e->forked)
        pthread_join(e->pump, NULL); /* a fork has no such thread */
    e->pumping = 0;
    e->stopping = 0;
    PyEval_RestoreThread(state);
}
