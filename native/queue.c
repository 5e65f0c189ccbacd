/* A growable FIFO of messages, process-local. Grown only by what this process itself queues or was credited (R5). */
#include <stdlib.h>

#include "endpoint.h"

static int queue_grow(Queue *q)
{
    u64 room = q->room ? q->room * 2 : 64;
    Message *at = malloc(room * sizeof(Message));
    if (!at)
        return -1;
    u64 n = queue_length(q);
    for (u64 i = 0; i < n; i++)
        at[i] = q->at[(q->first + i) & (q->room - 1)];
    free(q->at);
    q->at = at;
    q->room = room;
    q->first = 0;
    q->next = n;
    return 0;
}

int queue_push(Queue *q, const Message *m)
{
    if (queue_length(q) == q->room && queue_grow(q) < 0)
        return -1;
    q->at[q->next & (q->room - 1)] = *m;
    q->next++;
    return 0;
}

int queue_pop(Queue *q, Message *m)
{
    if (q->first == q->next)
        return 0;
    *m = q->at[q->first & (q->room - 1)];
    q->first++;
    return 1;
}

void queue_free(Queue *q)
{
    free(q->at);
    q->at = NULL;
    q->room = 0;
    q->first = 0;
    q->next = 0;
}
