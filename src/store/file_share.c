/* SPDX-License-Identifier: MIT
** What a holder tells others of its hold: how far its work is; and its lock as
** a descriptor of its own, for a child that looks after the work of its
** parent.
**
** PROGRESS stands in the key's slot, for all who map the side file: nothing is
** written to a disk, and it is gone with the grant, whose token it bears.
**
** THE DESCRIPTOR
**
** It is the same open file description: the kernel lets go of the lock when
** the last copy is closed, or at LOCK_UN through any of them.  The store does
** not know the copy, so what happens at a fork leaves it alone.
*/
#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

eg_status egi_file_share(egi_store *store, eg_bytes key, uint64_t token,
                         int *fd, eg_error *error) {
  egi_file *file = (egi_file *)store;
  egi_at at;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_at_begin(file, key, &at);
  status = egi_shard_lock(file, at.shard, error);
  if (status == EG_OK) {
    const egi_entry *entry = egi_lock_entry(&at);
    bool mine = entry != NULL && entry->held && entry->file == file &&
                entry->token == token;
    status = mine ? EG_OK : EG_LOST;
    if (mine && (*fd = fcntl(entry->fd, F_DUPFD_CLOEXEC, 3)) < 0)
      status = egi_file_fail(error, EG_UNAVAILABLE, errno,
                             "cannot copy the descriptor of the lock: %s",
                             strerror(errno));
    egi_shard_unlock(file, at.shard);
  }
  egi_at_end(&at);
  return status;
}

eg_status egi_file_report(egi_store *store, eg_bytes key, uint64_t token,
                          int thousandths, eg_error *error) {
  egi_file *file = (egi_file *)store;
  egi_at at;
  eg_status status = egi_file_attach(file, error);
  if (status != EG_OK)
    return status;
  egi_at_begin(file, key, &at);
  status = egi_shard_lock(file, at.shard, error);
  if (status == EG_OK) {
    egi_slot *slot = egi_slot_find(&at.dir->side, at.shard, at.hash, at.hash2,
                                   &at.row);
    const egi_entry *entry = egi_lock_entry(&at);
    bool mine = entry != NULL && entry->held && entry->file == file &&
                entry->token == token && slot != NULL && slot->held &&
                slot->token == token;
    status = mine ? EG_OK : EG_LOST;
    if (mine) {
      slot->progress_token = (uint32_t)token;
      slot->progress = thousandths < 0 ? 0 : (uint32_t)thousandths + 1;
    }
    egi_shard_unlock(file, at.shard);
  }
  egi_at_end(&at);
  return status;
}
