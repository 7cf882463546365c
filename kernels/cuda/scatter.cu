// Writing by index in a fixed order: every slice of the result gets the list of its updates, in
// ascending order. pam_targets_* say which slice an update goes to, pam_link strings the updates of
// a slice together in whatever order the threads come, pam_sort_links sorts each list, and the kernels
// of PAM_SCATTER (movement.cuh) fold it. No order of threads shows in the result.
#include "movement.cuh"

// ScatterElements: one update an index.
PAM_KERNEL pam_targets_elements(const void *at, u32 type, u32 count, const u64 *axes, u32 rank,
                                u64 stride, u32 size, u32 *targets, u64 *fault) {
  PAM_EACH(n, count) {
    u64 i = resolve(index_at(at, type, n), size, fault);
    u64 to = place((u32)n, axes, rank) + stride_mul((u32)i, stride);
    *elem(targets, n) = i < size ? (u32)to : NOWHERE;
  }
}

// ScatterND: one update a tuple of indices.
PAM_KERNEL pam_targets_tuples(const void *at, u32 type, u32 count, const u64 *dims, u32 members,
                              u32 *targets, u64 *fault) {
  PAM_EACH(n, count)
  *elem(targets, n) = (u32)tuple_at(at, type, (u32)n, dims, members, 0, fault);
}

// MaxUnpool: an index over the image that the pooling saw, found again in the larger image `axes`, pairs
// of a dimension there and the dimension here.
PAM_KERNEL pam_targets_unpool(const void *at, u32 type, u32 count, const u64 *axes, u32 rank,
                              u64 size, u32 *targets, u64 *fault) {
  PAM_EACH(n, count) {
    u64 i = resolve(index_at(at, type, n), size, fault);
    u32 flat = (u32)i, to = 0, step = 1;
    bool inside = i < size;
    for (u32 d = rank; d-- > 0;) {
      u32 digit;
      const u64 *axis = elem(axes, shl<1>(d));
      flat = divide(flat, (u32)axis[0], digit);
      inside &= digit < (u32)axis[1];
      to += (u32)stride_mul(digit, step);
      step = (u32)stride_mul(step, axis[1]);
    }
    *elem(targets, n) = inside ? to : NOWHERE;
  }
}

// `heads` holds NOWHERE for every slice before.
PAM_KERNEL pam_link(const u32 *targets, u32 count, u32 *heads, u32 *next) {
  PAM_EACH(n, count) {
    u32 to = *elem(targets, n);
    if (to != NOWHERE) *elem(next, n) = atomicExch(elem(heads, to), (u32)n);
  }
}

// Merge sort of each list: runs of 1, 2, 4, ... are merged until one is left.
PAM_KERNEL pam_sort_links(u32 slices, u32 *heads, u32 *next) {
  PAM_EACH(n, slices) {
    u32 head = *elem(heads, n);
    if (head == NOWHERE || *elem(next, head) == NOWHERE) continue;
    for (u32 length = 1;; length += length) {
      u32 p = head, tail = NOWHERE, merges = 0;
      head = NOWHERE;
      while (p != NOWHERE) {
        ++merges;
        u32 q = p, left = 0, right = length;
        while (left < length && q != NOWHERE) ++left, q = *elem(next, q);
        while (left > 0 || (right > 0 && q != NOWHERE)) {
          bool first = left > 0 && (right == 0 || q == NOWHERE || p < q);
          u32 u = first ? p : q;
          if (first) {
            p = *elem(next, p), --left;
          } else {
            q = *elem(next, q), --right;
          }
          if (tail == NOWHERE) {
            head = u;
          } else {
            *elem(next, tail) = u;
          }
          tail = u;
        }
        p = q;
      }
      *elem(next, tail) = NOWHERE;
      if (merges <= 1) break;
    }
    *elem(heads, n) = head;
  }
}
