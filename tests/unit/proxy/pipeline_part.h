/* pipeline: a scene whose upstreams listen. */
#ifndef CLAW_TEST_PIPELINE_PART_H
#define CLAW_TEST_PIPELINE_PART_H

#include "scene.h"

static inline int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    return 0;
}

#define BOTH(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)

#endif
