#include "app/watch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SETTLE_MS 100u
#define LOOK_MS 750u /* with SETTLE_MS less than the second in which a change is promised to be live */
enum { CONF_DIR, POLICIES, LIB, FOLDERS };
#define CERTIFICATES 3u
#define EXTRAS (CERTIFICATES + CLAW_CONF_FILES)

struct claw_watch {
    struct claw_loop *loop;
    void (*on_change)(void *arg);
    void *arg;
    uv_fs_event_t events[FOLDERS];
    bool watching[FOLDERS];
    ino_t watched[FOLDERS]; /* which folder had the name then */
    unsigned open;
    struct claw_timer settle, look;
    char *file, *folder[FOLDERS], *extra[EXTRAS];
    uint64_t seen;
    bool closing;
};

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    return claw_str_hash((struct claw_str){p, n}, h);
}

static uint64_t stat_of(uint64_t h, const char *path)
{
    struct stat st;
    if (!path || stat(path, &st) != 0) return mix(h, "-", 1);
    uint64_t facts[4] = {(uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_ino};
    return mix(h, facts, sizeof facts);
}

/* Order does not matter: what readdir gives has none. */
static uint64_t look_at_folder(const char *folder)
{
    DIR *d = folder ? opendir(folder) : NULL;
    uint64_t sum = 0;
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".lua") != 0) continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, e->d_name) >= (int)sizeof path) continue;
        sum += stat_of(mix(1, e->d_name, n), path);
    }
    closedir(d);
    return sum;
}

static uint64_t look(const struct claw_watch *w)
{
    uint64_t h = stat_of(0, w->file);
    for (unsigned i = 0; i < EXTRAS; i++)
        if (i < CERTIFICATES || w->extra[i]) h = stat_of(h, w->extra[i]);
    uint64_t policies[2] = {look_at_folder(w->folder[POLICIES]), look_at_folder(w->folder[LIB])};
    return mix(h, policies, sizeof policies);
}

static void watch_folders(struct claw_watch *w);

void claw_watch_mark(struct claw_watch *w) { w->seen = look(w); }

static void on_settled(struct claw_timer *t)
{
    struct claw_watch *w = t->arg;
    watch_folders(w); /* first: what changes behind it is told */
    w->on_change(w->arg);
}

/* A log file that grows in the same folder is nothing to look at. "..data" is how Kubernetes swaps mounted files. */
static bool concerns(const struct claw_watch *w, const char *name)
{
    if (!name || strncmp(name, "..", 2) == 0) return true;
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, ".lua") == 0) return true;
    for (const char *const *p = (const char *const[]){w->file, w->folder[POLICIES], w->folder[LIB], NULL}; *p; p++) {
        const char *slash = strrchr(*p, '/');
        if (strcmp(slash ? slash + 1 : *p, name) == 0) return true;
    }
    return false;
}

static void on_fs_event(uv_fs_event_t *h, const char *name, int events, int status)
{
    struct claw_watch *w = h->data;
    size_t i = (size_t)(h - w->events);
    const char *slash = name && w->folder[i] ? strrchr(w->folder[i], '/') : NULL;
    if (slash && strcmp(slash + 1, name) == 0) w->watched[i] = 0; /* of the folder itself: it may be gone, and its number another's */
    if (!w->closing && concerns(w, name)) claw_timer_start(w->loop, &w->settle, SETTLE_MS);
}

static void watch_folder(struct claw_watch *w, int i)
{
    struct stat st;
    w->watched[i] = w->folder[i] && stat(w->folder[i], &st) == 0 ? st.st_ino : 0;
    w->watching[i] = w->folder[i] && uv_fs_event_start(&w->events[i], on_fs_event, w->folder[i], 0) == 0;
}

/* Those that are not watched, or whose name another folder has now: what is watched is the folder, wherever it goes. */
static void watch_folders(struct claw_watch *w)
{
    for (int i = 0; i < FOLDERS; i++) {
        struct stat st;
        if (w->watching[i] && (stat(w->folder[i], &st) != 0 || st.st_ino != w->watched[i])) {
            uv_fs_event_stop(&w->events[i]);
            w->watching[i] = false;
        }
        if (!w->watching[i]) watch_folder(w, i);
    }
}

static void on_look(struct claw_timer *t)
{
    struct claw_watch *w = t->arg;
    if (look(w) != w->seen && !claw_timer_running(&w->settle)) claw_timer_start(w->loop, &w->settle, SETTLE_MS);
    watch_folders(w);
    claw_timer_start(w->loop, t, LOOK_MS);
}

int claw_watch_new(struct claw_loop *loop, void (*on_change)(void *arg), void *arg, struct claw_watch **out)
{
    struct claw_watch *w = calloc(1, sizeof *w);
    if (!w) return CLAW_ENOMEM;
    w->loop = loop;
    w->on_change = on_change;
    w->arg = arg;
    for (int i = 0; i < FOLDERS; i++) {
        if (uv_fs_event_init(&loop->uv, &w->events[i]) != 0) return CLAW_EIO;
        w->events[i].data = w;
        w->open++;
    }
    claw_timer_init(&w->settle, on_settled, w);
    claw_timer_init(&w->look, on_look, w);
    claw_timer_start(loop, &w->look, LOOK_MS);
    *out = w;
    return 0;
}

static bool renew(char **to, const char *from)
{
    if ((*to == NULL) == (from == NULL) && (!from || strcmp(*to, from) == 0)) return false;
    free(*to);
    *to = from ? strdup(from) : NULL;
    return true;
}

void claw_watch_set(struct claw_watch *w, const struct claw_conf *conf)
{
    char *lib = NULL;
    if (conf->policies.dir && asprintf(&lib, "%s/lib", conf->policies.dir) < 0) lib = NULL; /* then it is looked at less often */
    const char *folders[FOLDERS] = {conf->dir, conf->policies.dir, lib};
    bool first = !w->file;
    renew(&w->file, conf->path);
    for (int i = 0; i < FOLDERS; i++) {
        if (!renew(&w->folder[i], folders[i])) continue;
        if (w->watching[i]) uv_fs_event_stop(&w->events[i]);
        watch_folder(w, i);
    }
    free(lib);
    renew(&w->extra[0], conf->server.tls.cert);
    renew(&w->extra[1], conf->server.tls.key);
    renew(&w->extra[2], conf->server.tls.client_ca);
    for (unsigned i = 0; i < CLAW_CONF_FILES; i++) renew(&w->extra[CERTIFICATES + i], i < conf->files_n ? conf->files[i] : NULL);
    if (first) claw_watch_mark(w);
}

static void on_closed(uv_handle_t *h)
{
    struct claw_watch *w = h->data;
    if (--w->open > 0) return;
    for (int i = 0; i < FOLDERS; i++) free(w->folder[i]);
    for (unsigned i = 0; i < EXTRAS; i++) free(w->extra[i]);
    free(w->file);
    free(w);
}

void claw_watch_free(struct claw_watch *w)
{
    w->closing = true;
    claw_timer_stop(w->loop, &w->settle);
    claw_timer_stop(w->loop, &w->look);
    for (int i = 0; i < FOLDERS; i++) uv_close((uv_handle_t *)&w->events[i], on_closed);
}
