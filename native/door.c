/* Doorbells: ringing others, and our own bell. A doorbell is a hint (decision 3).
 *
 * S2: after a publish: fence, look at the consumer's seq; ring once for each odd value.
 * On a host the door of another peer is an eventfd that the server's notices bring; in a guest one register rings all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "endpoint.h"

#define NOTICE_GONE (1ull << 63)

void door_ring(Endpoint *e, u64 slot, u64 seq)
{
    u64 address = load_relaxed(slot_words(e->region, slot) + NC_SLOT_AT_BELL); /* peer << 16 | vector, as its owner says */
    u64 peer = address >> 16;
    u64 vector = address & 0xffff;
    Doors *d = &e->doors;
    d->rung[slot] = seq;
    if (peer >= NC_PEERS)
        return;
    e->rings++;
    if (d->doorbell) {
        *d->doorbell = (uint32_t)(peer << 16 | (vector & 0xff));
        return;
    }
    Door *door = d->by_peer ? d->by_peer[peer] : NULL;
    if (!door || vector >= VECTORS_MAX || door->fd[vector] < 0)
        return; /* its notice is on the way; until then the timeout does the work (S3) */
    u64 one = 1;
    if (write(door->fd[vector], &one, sizeof one) < 0)
        return; /* full: it has been rung often enough */
}

void door_check(Endpoint *e, u64 slot)
{
    fence();
    u64 seq = load_relaxed(slot_words(e->region, slot) + NC_SLOT_AT_SEQ);
    if ((seq & 1) && seq != e->doors.rung[slot])
        door_ring(e, slot, seq);
}

static void door_forget(Doors *d, u64 peer)
{
    Door *door = d->by_peer ? d->by_peer[peer] : NULL;
    if (!door)
        return;
    for (int i = 0; i < VECTORS_MAX; i++) {
        if (door->fd[i] >= 0)
            close(door->fd[i]);
    }
    free(door);
    d->by_peer[peer] = NULL;
}

int door_add(Doors *d, u64 peer, u64 vector, int fd)
{
    if (peer >= NC_PEERS || vector >= VECTORS_MAX) {
        close(fd);
        return 0;
    }
    if (!d->by_peer)
        d->by_peer = calloc(NC_PEERS, sizeof(Door *));
    if (d->by_peer && !d->by_peer[peer]) {
        Door *door = malloc(sizeof *door);
        if (door) {
            for (int i = 0; i < VECTORS_MAX; i++)
                door->fd[i] = -1;
        }
        d->by_peer[peer] = door;
    }
    if (!d->by_peer || !d->by_peer[peer]) {
        close(fd);
        return -1;
    }
    Door *door = d->by_peer[peer];
    if (door->fd[vector] >= 0)
        close(door->fd[vector]);
    door->fd[vector] = fd;
    return 0;
}

void doors_free(Doors *d)
{
    if (!d->by_peer)
        return;
    for (u64 peer = 0; peer < NC_PEERS; peer++)
        door_forget(d, peer);
    free(d->by_peer);
    d->by_peer = NULL;
}

/* One notice, 8 bytes and perhaps a descriptor. 1 read, 0 nothing there, -1 the server is gone. */
static int notice_read(Doors *d, u64 *value, int *fd)
{
    union {
        char space[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {value, 8};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    ssize_t n = recvmsg(d->notices, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (n != 8)
        return -1; /* the server writes whole notices only */
    *fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        if (*fd >= 0)
            close(*fd);
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    }
    return 1;
}

int doors_read_notices(Endpoint *e)
{
    Doors *d = &e->doors;
    u64 value;
    int fd;
    int got;
    if (d->notices < 0 || d->server_gone)
        return 0;
    while ((got = notice_read(d, &value, &fd)) == 1) {
        u64 peer = value >> 16 & 0xffff;
        if (value & NOTICE_GONE)
            door_forget(d, peer);
        else if (fd >= 0)
            door_add(d, peer, value & 0xffff, fd);
    }
    if (got < 0)
        d->server_gone = 1;
    return got;
}

/* The bell is sticky: read it empty. 1 if it had been rung. */
int bell_consume(Endpoint *e)
{
    char count[8];
    if (e->doors.bell < 0)
        return 0;
    return read(e->doors.bell, count, (size_t)e->doors.bell_bytes) > 0;
}
