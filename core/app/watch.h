/* watch: notices that openclaw.yaml, a policy, a certificate or a file of ${file:} changed on disk.
 *
 * inotify on the folders tells at once; changes within 100 ms are one. Every 750 ms the files' sizes and times are compared
 * as well, for file systems that do not tell and for files in other folders (certificates, secrets). A folder that does not exist
 * yet is found by the latter.
 */
#ifndef CLAW_APP_WATCH_H
#define CLAW_APP_WATCH_H

#include "base/conf.h"
#include "net/loop.h"

struct claw_watch;

/* Nothing is watched before claw_watch_set. on_change(arg) runs on the loop. CLAW_ENOMEM, CLAW_EIO (no inotify). */
int claw_watch_new(struct claw_loop *loop, void (*on_change)(void *arg), void *arg, struct claw_watch **out) CLAW_MUSTCHECK;
/* Before the files are read again: what changes from now on is told, also while they are read. */
void claw_watch_mark(struct claw_watch *w);
/* What to watch from now on: conf's file, its policies folder and the lib inside of it, its certificates, the files of its ${file:} and service accounts.
 * Files that were not watched before are told of once: what they were when they were read is not known. */
void claw_watch_set(struct claw_watch *w, const struct claw_conf *conf);
/* Closes its handles; memory goes when the loop turned. */
void claw_watch_free(struct claw_watch *w);

#endif
