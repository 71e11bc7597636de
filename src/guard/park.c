/* SPDX-License-Identifier: MIT
** Timers that belong to no thread, by their deadline: a pairing heap.
**
** The links are in the timers, so adding one never fails.  `child` is the
** first of the children, `next` the next sibling, `back` the sibling before
** or, of a first child, its parent.  (Fredman, Sedgewick, Sleator, Tarjan:
** The Pairing Heap, 1986.)
*/
#include "guard/slot.h"

static eg_timer *root;

static eg_timer *meld(eg_timer *a, eg_timer *b) {
  if (a == NULL || b == NULL)
    return a != NULL ? a : b;
  if (egi_timer_deadline(b) < egi_timer_deadline(a)) {
    eg_timer *swap = a;
    a = b;
    b = swap;
  }
  b->next = a->child;
  if (b->next != NULL)
    b->next->back = b;
  b->back = a;
  a->child = b;
  return a;
}

/* Melds siblings in pairs, then the pairs from the last to the first. */
static eg_timer *meld_all(eg_timer *first) {
  eg_timer *pairs = NULL;
  while (first != NULL) {
    eg_timer *a = first, *b = a->next;
    first = b != NULL ? b->next : NULL;
    a->next = a->back = NULL;
    if (b != NULL)
      b->next = b->back = NULL;
    a = meld(a, b);
    a->next = pairs;
    pairs = a;
  }
  eg_timer *all = NULL;
  while (pairs != NULL) {
    eg_timer *rest = pairs->next;
    pairs->next = NULL;
    all = meld(all, pairs);
    pairs = rest;
  }
  return all;
}

void egi_park_add(eg_timer *timer) {
  timer->child = timer->next = timer->back = NULL;
  root = meld(root, timer);
}

void egi_park_remove(eg_timer *timer) {
  eg_timer *children = meld_all(timer->child);
  if (timer == root) {
    root = children;
    return;
  }
  if (timer->back->child == timer)
    timer->back->child = timer->next;
  else
    timer->back->next = timer->next;
  if (timer->next != NULL)
    timer->next->back = timer->back;
  root = meld(root, children);
}

eg_timer *egi_park_first(void) { return root; }
