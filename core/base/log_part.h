/* log_part: what log.c and log_secret.c share. */
#ifndef CLAW_BASE_LOG_PART_H
#define CLAW_BASE_LOG_PART_H

#include "base/buf.h"

/* Replace the secrets between data + `at` and the last `keep` bytes of `b`. Any thread. */
void claw_log_redact_from(struct claw_buf *b, size_t at, size_t keep);

#endif
