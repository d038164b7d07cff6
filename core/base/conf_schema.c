#include "base/conf_schema.h"

#include <string.h>

#define BOOL CLAW_CONF_IS_BOOL
#define NUM CLAW_CONF_IS_NUMBER
#define INT CLAW_CONF_IS_INT
#define STR CLAW_CONF_IS_STRING
#define LIST CLAW_CONF_IS_LIST
#define MAP CLAW_CONF_IS_MAP
#define MATCH CLAW_CONF_IS_MATCH
#define NEED CLAW_CONF_REQUIRED
#define SECRET CLAW_CONF_SECRET

#define GROUP(name_, doc_) static const struct claw_conf_group name_##_group = {#name_, doc_, name_##_rules}

/* A length of time, 0 not allowed. */
#define SECONDS(key_, def, doc_)                                                                   \
    {key_, NUM, CLAW_CONF_ABOVE_MIN, .unit = "seconds", .fallback = def, .max = 86400, .doc = doc_}
/* A whole number from lo to hi. */
#define WHOLE(key_, unit_, def, lo, hi, doc_)                                                      \
    {key_, INT, .unit = unit_, .fallback = def, .min = lo, .max = hi, .doc = doc_}
#define PRICE(key_, unit_, doc_) {key_, NUM, .unit = unit_, .max = 1e6, .doc = doc_}
#define PRICES                                                                                     \
    PRICE("cost_per_million_input_tokens", "USD", "Price of a million input tokens."),             \
    PRICE("cost_per_million_output_tokens", "USD", "Price of a million output tokens."),           \
    PRICE("cost_per_million_cached_input_tokens", "USD",                                           \
          "Price of a million input tokens read from the provider's prompt cache."),               \
    PRICE("cost_per_million_cache_write_tokens", "USD",                                            \
          "Price of a million input tokens written to the provider's prompt cache; as input when not given."), \
    PRICE("cost_per_request", "USD", "Price of a request, whatever its tokens.")
#define INSTANCE_ROLE                                                                              \
    {"instance_role", BOOL, .fallback = "false",                                                   \
     .doc = "Without keys: credentials of the EC2 instance's role, from its metadata (IMDSv2). Those of a pod or a container are used unasked, where AWS_WEB_IDENTITY_TOKEN_FILE " \
            "and AWS_ROLE_ARN, or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI say where. All are renewed before they expire."}
#define RATES                                                                                      \
    WHOLE("requests_per_second", "requests", NULL, 1, 1e9, "Most requests in a second."),          \
    WHOLE("requests_per_minute", "requests", NULL, 1, 1e9, "Most requests in a minute."),          \
    WHOLE("requests_per_hour", "requests", NULL, 1, 1e9, "Most requests in an hour."),             \
    WHOLE("requests_per_day", "requests", NULL, 1, 1e9, "Most requests in a day."),                \
    WHOLE("tokens_per_minute", "tokens", NULL, 1, 1e12, "Most input and output tokens in a minute."), \
    WHOLE("tokens_per_day", "tokens", NULL, 1, 1e12, "Most input and output tokens in a day."),    \
    WHOLE("concurrent", "requests", NULL, 1, 1e6, "Most requests at the same time."),              \
    WHOLE("burst", "requests", NULL, 0, 1e9, "Requests allowed at once beyond the steady rate; the whole limit when not given."),  \
    WHOLE("max_wait_ms", "ms", "0", 0, 600000, "Wait this long for room instead of refusing; clients take turns."), \
    WHOLE("max_waiting", "requests", "1000", 1, 1e6, "Most requests that wait for it (each of its counts)."), \
    WHOLE("max_waiting_per_client", "requests", "100", 1, 1e6, "Most of them from one client (without `clients`: one address).")

static const struct claw_conf_rule name_rule = {.key = "", .is = STR, .format = CLAW_CONF_NAME};
static const struct claw_conf_rule place_rule = {.key = "", .is = STR, .format = CLAW_CONF_PLACE};
static const struct claw_conf_rule variable_rule = {.key = "", .is = STR, .format = CLAW_CONF_VARIABLE};
static const struct claw_conf_rule cidr_rule = {.key = "", .is = STR, .format = CLAW_CONF_CIDR};

/* ---- server, admin ---------------------------------------------------------------------------------------- */

static const struct claw_conf_rule server_tls_rules[] = {
    {"cert", STR, NEED | CLAW_CONF_NOT_EMPTY, .doc = "Certificate chain, a PEM file."},
    {"key", STR, NEED | CLAW_CONF_NOT_EMPTY, .doc = "Its private key, a PEM file."},
    {"client_ca", STR, CLAW_CONF_NOT_EMPTY,
     .doc = "Ask clients for a certificate signed by one of these, a PEM file."},
    {0}};
GROUP(server_tls, "TLS for clients.");

static const struct claw_conf_rule server_rules[] = {
    {"listen_address", STR, .format = CLAW_CONF_ADDRESS, .fallback = "0.0.0.0",
     .doc = "Address to listen on; \"::\" for IPv6 too."},
    WHOLE("listen_port", NULL, "8080", 0, 65535, "Port to listen on; 0 takes a free one."),
    SECONDS("timeout_seconds", "60", "How long an upstream may take, unless the upstream or route says otherwise."),
    WHOLE("workers", "threads", "(the CPUs this process may use)", 1, 256,
          "Threads that serve requests; of a container with a quota of CPU time as many as that comes to. Needs a restart."),
    {"tls", MAP, .group = &server_tls_group, .doc = "Serve HTTPS."},
    WHOLE("max_body_mb", "MB", "32", 1, 4096, "Largest request body; larger ones get 413."),
    WHOLE("upload_hold_kb", "KB", "1024", 1, 4194304,
          "Forms (multipart/form-data) up to this are held whole. Larger ones are passed on while they come, from their field `model` on, or when "
          "so much has come without one: then they are routed as without. Once more was sent than is held, no other upstream is tried."),
    WHOLE("max_header_kb", "KB", "32", 1, 1024, "Largest request head; larger ones get 431."),
    SECONDS("idle_timeout_seconds", "75", "Close a client's connection that has been idle so long."),
    SECONDS("header_timeout_seconds", "10", "Time for a request's head to arrive."),
    SECONDS("body_timeout_seconds", "10", "In each such interval at least 1 KB a second of a request's body must arrive."),
    SECONDS("send_timeout_seconds", "30", "Longest time a client may read nothing of an answer that waits for it."),
    {"drain_seconds", NUM, .unit = "seconds", .fallback = "30", .max = 86400,
     .doc = "At shutdown, how long requests in flight may go on; then they are cut, each with an error."},
    WHOLE("max_connections", "connections", "10000", 1, 1e6, "Most client connections over all workers."),
    {"expose_headers", BOOL, .fallback = "true", .doc = "Put x-openclaw-* headers on answers."},
    {"trusted_proxies", LIST, .each = &cidr_rule, .doc = "Networks whose X-Forwarded-For is believed."},
    {0}};
GROUP(server, "How clients reach the proxy.");

static const struct claw_conf_rule admin_rules[] = {
    {"listen_address", STR, .format = CLAW_CONF_ADDRESS, .fallback = "127.0.0.1",
     .doc = "Address of the admin port."},
    WHOLE("listen_port", NULL, "9090", 0, 65535, "Port for health, metrics and control; 0 turns it off."),
    {"token", STR, SECRET, CLAW_CONF_HEADER, .fallback = "",
     .doc = "Bearer token the admin port asks for; empty: none."},
    {"hosts", LIST, .each = &place_rule,
     .doc = "Names the admin port answers to while it has no token, beside addresses and localhost: a page of another site that lets its own name "
            "lead here is refused. Probes are answered whatever they call it."},
    WHOLE("recent_requests", "requests", "200", 0, 2000, "Finished requests each worker keeps with how they were decided, for GET /requests, in about 2 KB each; 0: none."),
    {"allow_policy_write", BOOL, .fallback = "false", .doc = "Let PUT /policies/NAME write files into policies.dir."},
    {0}};
GROUP(admin, "Health, metrics and control.");

/* ---- upstreams -------------------------------------------------------------------------------------------- */

static const struct claw_conf_rule model_rules[] = {
    {"name", STR, NEED, CLAW_CONF_NAME, .doc = "Model name, or a glob with `*`."},
    PRICES,
    WHOLE("context_window", "tokens", NULL, 1, 1e9, "Most tokens the model takes in."),
    {"capabilities", LIST, .each = &name_rule, .doc = "What it can do: tools, vision, json_schema, streaming …"},
    {0}};
GROUP(model, "A model of an upstream, when its name alone does not say enough.");

static const struct claw_conf_rule model_item = {.key = "", .is = STR | MAP,
    .format = CLAW_CONF_NAME, .group = &model_group};

static const struct claw_conf_rule api_key_rules[] = {
    {"key", STR, NEED | SECRET, CLAW_CONF_HEADER, .doc = "The key."},
    {"weight", NUM, CLAW_CONF_ABOVE_MIN, .fallback = "1", .max = 1e6, .doc = "Its share of the requests."},
    {"models", LIST, .each = &name_rule, .doc = "Models (or globs) it may be used for; all when not given."},
    {0}};
GROUP(api_key, "One of several keys of an upstream.");

static const struct claw_conf_rule api_key_item = {.key = "", .is = STR | MAP, .flags = SECRET,
    .format = CLAW_CONF_HEADER, .group = &api_key_group};

static const struct claw_conf_rule header_rules[] = {
    {"*", STR, CLAW_CONF_SECRET_BY_KEY, CLAW_CONF_HEADER, .doc = "Header name and value."}, {0}};
GROUP(header, "Headers. Values of names that look like credentials are kept secret.");

static const struct claw_conf_rule model_map_rules[] = {
    {"*", STR, .format = CLAW_CONF_NAME, .doc = "Model asked for: model sent."}, {0}};
GROUP(model_map, "Names of models at this upstream.");

static const struct claw_conf_rule upstream_tls_rules[] = {
    {"ca", STR, CLAW_CONF_NOT_EMPTY, .fallback = "(the system's roots)",
     .doc = "Certificates to trust, a PEM file."},
    {"verify", BOOL, .fallback = "true", .doc = "Check the upstream's certificate."},
    {"server_name", STR, .format = CLAW_CONF_NAME, .fallback = "(the host of base_url)",
     .doc = "Name to ask for and to check."},
    {0}};
GROUP(upstream_tls, "TLS with the upstream.");

static const struct claw_conf_rule aws_rules[] = {
    {"access_key_id", STR, SECRET, CLAW_CONF_HEADER, .fallback = "(AWS_ACCESS_KEY_ID, with the secret and token beside it)", .doc = "Id of the access key."},
    {"secret_access_key", STR, SECRET, CLAW_CONF_HEADER, .doc = "The key's secret; needed with access_key_id."},
    {"session_token", STR, SECRET, CLAW_CONF_HEADER, .doc = "Of temporary credentials."},
    INSTANCE_ROLE,
    {"region", STR, .format = CLAW_CONF_NAME, .fallback = "(base_url's, the upstream's region, AWS_REGION, AWS_DEFAULT_REGION)",
     .doc = "Region to sign for; base_url follows from it unless given."},
    {0}};
GROUP(aws, "Credentials that requests to bedrock are signed with (AWS Signature Version 4), where no api_key is given. They are read "
      "with this file: a reload reads them anew.");

static const struct claw_conf_rule health_rules[] = {
    {"path", STR, NEED, CLAW_CONF_NAME, .doc = "Path to GET, at base_url's host, with the upstream's key and headers. Any status below 400 is good."},
    SECONDS("interval_seconds", "10", "Time between checks."),
    {0}};
GROUP(health, "Active health checks: one worker asks, one check at a time, for at most 5 seconds. Three in a row that fail set the upstream "
      "aside; one that is good closes it again, once its pause is over.");

static const struct claw_conf_rule cooling_rules[] = {
    WHOLE("failures", NULL, "3", 0, 1000, "Failures in a row that set it aside; 0: not by them."),
    WHOLE("percent", "percent", "25", 0, 100, "Part of the requests of the last 30 seconds that failed which sets it aside; 0: not by it."),
    WHOLE("requests", NULL, "10", 1, 1e6, "Of at least so many requests."),
    {0}};
GROUP(cooling, "When an upstream is set aside, to be asked again after 1, 2, 4 … seconds by one request at a time.");

static const struct claw_conf_rule upstream_rules[] = {
    {"name", STR, .format = CLAW_CONF_NAME, .fallback = "(the key)", .doc = "Unique name; only in the list form."},
    {"type", STR, NEED,
     .words = "openai anthropic gemini google vertex azure bedrock mistral cohere ollama generic groq deepseek "
     "openrouter together fireworks xai perplexity huggingface vllm nvidia mock", .doc = "Kind of provider."},
    {"api_key", STR, SECRET, CLAW_CONF_HEADER, .doc = "The provider's key; use ${VAR} or ${file:}."},
    {"api_keys", LIST, SECRET, .each = &api_key_item,
     .doc = "Several keys, chosen by weight among the usable ones."},
    {"base_url", STR, .format = CLAW_CONF_URL, .fallback = "(the provider's; azure and generic have none)",
     .doc = "URL of the API, http or https. bedrock has one when it knows a region, vertex with project and region. "
            "Claude on vertex is below …/publishers/anthropic, an upstream of its own."},
    {"models", LIST, .each = &model_item,
     .doc = "Models it serves: names, globs or maps; any model when not given."},
    {"protocols", LIST, CLAW_CONF_NOT_EMPTY, .each = &name_rule, .fallback = "(all its type has)",
     .doc = "Which of its type's protocols it is asked in, preferred first: openai_chat, openai_responses, openai_completions, openai_embeddings, anthropic_messages, "
            "anthropic_count_tokens, gemini_generate, gemini_embed, gemini_embed_batch, gemini_count_tokens, cohere_chat, cohere_embeddings, bedrock_converse, "
            "bedrock_embeddings, ollama_chat, ollama_embeddings. Clients of the others are translated for it."},
    {"model_map", MAP, .group = &model_map_group, .doc = "Rename models on the way out."},
    SECONDS("timeout_seconds", "(server.timeout_seconds)", "How long the head of an answer may take."),
    SECONDS("connect_timeout_seconds", "5", "TCP and TLS handshake."),
    SECONDS("first_byte_timeout_seconds", "(timeout_seconds)", "From the request sent to the answer's head, and of a stream to its first event; comments before it then go on to clients that take them."),
    SECONDS("stall_timeout_seconds", "120", "Longest silence within an answer."),
    {"headers", MAP, .group = &header_group, .doc = "Headers to send with each request."},
    PRICES,
    WHOLE("max_concurrency", "requests", "0", 0, 1e6, "Most requests at the same time, over all workers; past it the next candidate is asked, and without one 429 is answered. 0: no bound."),
    {"region", STR, .format = CLAW_CONF_NAME, .doc = "Region, for strategies and for providers that need one."},
    {"aws", MAP, .group = &aws_group, .doc = "bedrock: sign requests with these credentials, instead of an api_key."},
    {"project", STR, .format = CLAW_CONF_NAME, .fallback = "(service_account's)", .doc = "vertex: the project, for base_url."},
    {"service_account", STR, SECRET | CLAW_CONF_NOT_EMPTY,
     .doc = "vertex: a service account's key, its JSON (${file:}) or the file's name, instead of an api_key. Access tokens are got with "
            "it at its token_uri, kept, and renewed before they expire."},
    {"api_version", STR, .format = CLAW_CONF_NAME, .fallback = "(the provider's)", .doc = "What azure's api-version says."},
    {"tls", MAP, .group = &upstream_tls_group, .doc = "TLS with the upstream."},
    {"health", MAP, .group = &health_group, .doc = "Active health checks."},
    {"cooling", BOOL | MAP, .group = &cooling_group,
     .doc = "false: it is never set aside, its keys alone are, one for another; or when it is. Besides these it is for as long as a Retry-After of a 429, 503 or 529 says, 300 "
            "seconds at most."},
    {"lossy", STR, .fallback = "(sampling and the like are dropped, the rest is refused)", .words = "refuse allow",
     .doc = "What a translation cannot express: refuse the request, or drop it and say so in x-openclaw-dropped."},
    {0}};
GROUP(upstream, "A provider, or one account or instance of it.");

static const struct claw_conf_rule upstream_item = {.key = "", .is = MAP, .group = &upstream_group, .need = "name"};
static const struct claw_conf_rule upstreams_rules[] = {
    {"*", MAP, .group = &upstream_group, .doc = "An upstream's name and its settings."}, {0}};
GROUP(upstreams, "Upstreams by name. A list of settings with `name:` works too.");

/* ---- routes ----------------------------------------------------------------------------------------------- */

const char claw_conf_operators[] = "equals in contains matches exists gt gte lt lte not";

static const struct claw_conf_rule match_header_rules[] = {
    {"*", MATCH, CLAW_CONF_SECRET_BY_KEY, .doc = "Name and the value wanted."}, {0}};
GROUP(match_header, "Headers or query parameters. Values of names that look like credentials are kept secret.");

/* No secrets by key here: max_tokens is none. */
static const struct claw_conf_rule match_body_rules[] = {
    {"*", MATCH, .doc = "Dotted path, such as `model` or `messages[-1].content`, and the value wanted."}, {0}};
GROUP(match_body, "Fields of the JSON body.");

static const struct claw_conf_rule match_client_rules[] = {
    {"name", MATCH, .doc = "Client's name."},
    {"tier", MATCH, .doc = "Client's tier."},
    {"ip", MATCH, .doc = "Client's address or network."},
    {0}};
GROUP(match_client, "Who asks.");

static const struct claw_conf_rule match_rules[] = {
    {"path", MATCH, .doc = "Request path; `*` stands for any run of characters."},
    {"method", MATCH, .doc = "HTTP method."},
    {"headers", MAP, .group = &match_header_group, .doc = "Request headers."},
    {"query", MAP, .group = &match_header_group, .doc = "Query parameters."},
    {"json_body", MAP, .group = &match_body_group, .doc = "Fields of the JSON body."},
    {"client", MAP | STR | LIST, .group = &match_client_group, .each = &name_rule,
     .doc = "Client: name, or name, tier and ip."},
    {"upstream_name", MATCH, .doc = "Upstream chosen."},
    {"route_id", MATCH, .doc = "Route taken."},
    {"model", MATCH, .doc = "Model asked for."},
    {0}};
GROUP(match, "What a request must be like. A value is a scalar, a list (any of) or a map of operators: "
      "equals in contains matches exists gt gte lt lte not.");

static const struct claw_conf_rule candidate_rules[] = {
    {"name", STR, NEED, CLAW_CONF_NAME, .doc = "Upstream's name."},
    {"weight", NUM, .fallback = "1", .max = 1e6, .doc = "Its share, for weighted strategies."},
    {"percentage", NUM, .unit = "percent", .max = 100,
     .doc = "Its share, for canary; what is left over is the first's."},
    {0}};
GROUP(candidate, "An upstream of a strategy.");

static const struct claw_conf_rule candidate_item = {.key = "", .is = STR | MAP,
    .format = CLAW_CONF_NAME, .group = &candidate_group};

static const struct claw_conf_rule strategy_rules[] = {
    {"type", STR, .format = CLAW_CONF_NAME, .fallback = "first_available",
     .doc = "round_robin, weighted_round_robin, weighted_random, "
     "first_available, failover, lowest_cost, lowest_latency, canary, least_busy, sticky, or the name of a policy."},
    {"upstreams", LIST, CLAW_CONF_NOT_EMPTY, .each = &candidate_item,
     .doc = "Candidates: names, or maps with name and weight or percentage."},
    {"upstream", STR, .format = CLAW_CONF_NAME, .doc = "The one candidate, instead of upstreams."},
    {"fallback", BOOL, .fallback = "true", .doc = "Go on to the next candidate when one fails."},
    {"on", STR, .format = CLAW_CONF_NAME,
     .doc = "sticky: what keeps requests together: client, session, prompt_prefix or header:NAME."},
    {"sticky_by", STR, .format = CLAW_CONF_NAME,
     .doc = "canary: what keeps one user on one side; values as for `on`."},
    {"max_latency_ms", NUM, CLAW_CONF_ABOVE_MIN, .unit = "ms", .max = 86400000,
     .doc = "Leave out candidates slower than this."},
    WHOLE("min_context", "tokens", NULL, 0, 1e9, "Leave out models with a smaller context window."),
    {"require", LIST | STR, .format = CLAW_CONF_NAME, .each = &name_rule,
     .doc = "Capabilities a candidate must have: tools, vision, json_schema, streaming."},
    {"region", LIST | STR, .format = CLAW_CONF_NAME, .each = &name_rule,
     .doc = "Only candidates of these regions."},
    {0}};
GROUP(strategy, "Which upstream gets the request, and which come after it.");

static const struct claw_conf_rule retry_on_item = {.key = "", .is = STR | INT, .min = 400, .max = 599,
    .words = "connect tls timeout_first_byte stall eof rate_limited overloaded auth "
             "context_window content_policy bad_response stream_error http_*"};
static const struct claw_conf_rule retry_rules[] = {
    WHOLE("attempts", NULL, "2", 1, 20, "Most attempts in all; 1: no retry."),
    {"on", LIST, .fallback = "[connect, timeout_first_byte, eof, 429, 500, 502, 503, 504, 529]", .each = &retry_on_item,
     .doc = "Kinds of failure and statuses that are tried again."},
    WHOLE("backoff_ms", "ms", "250", 0, 600000, "Pause before the second attempt; doubles from there."),
    WHOLE("max_backoff_ms", "ms", "8000", 0, 600000, "Longest pause."),
    {"jitter", NUM, .fallback = "0.2", .max = 1, .doc = "Part of the pause that is left to chance."},
    {"budget", NUM, .fallback = "0.2", .max = 1, .doc = "Tries beyond the first, as a part of the requests of the last 10 seconds, in the whole process; 10 in "
     "10 seconds may always be. 0: none."},
    {"total_timeout_seconds", NUM, .unit = "seconds", .fallback = "0", .max = 86400,
     .doc = "Time for all attempts together; 0: no bound."},
    {0}};
GROUP(retry, "Trying again before anything was sent to the client.");

static const struct claw_conf_rule hedge_rules[] = {
    {"after", STR | NUM, CLAW_CONF_ABOVE_MIN, .unit = "ms", .max = 86400000, .words = "p50 p75 p90 p95 p99", .fallback = "(p95)",
     .doc = "Start the next candidate when no token came by then: ms, or a percentile of the upstream's usual time to the "
     "first byte (known behind 20 answers)."},
    {"budget", NUM, .fallback = "0.05", .max = 1, .doc = "Hedges as a part of the route's requests, at most; in each worker."},
    {0}};
GROUP(hedge, "A second upstream started when the first is slow.");

static const struct claw_conf_rule route_cache_rules[] = {
    {"enabled", BOOL, .fallback = "true", .doc = "Cache this route's answers, also without caching.enabled (unless that is false)."},
    SECONDS("ttl_seconds", "(caching.default_ttl_seconds)", "How long an answer is kept; a strategy's own goes before it."),
    {"scope", STR, .fallback = "(caching.scope)", .words = "client shared", .doc = "Who shares cached answers."},
    {"coalesce", BOOL, .fallback = "(caching.coalesce)", .doc = "Do identical requests under way share one upstream call?"},
    {0}};
GROUP(route_cache, "Caching of one route.");

static const struct claw_conf_rule route_rules[] = {
    {"id", STR, .format = CLAW_CONF_NAME, .fallback = "(route_<n>)",
     .doc = "Unique name, seen in logs, metrics and headers."},
    {"match", MAP, .group = &match_group, .doc = "Which requests; all when not given."},
    {"strategy", MAP, NEED, .group = &strategy_group, .doc = "Which upstream."},
    {"policies", LIST, .each = &name_rule, .doc = "Policies to run, in this order, after policies.always."},
    {"retry", MAP, .group = &retry_group, .doc = "Instead of the general retry settings, key by key."},
    SECONDS("timeout_seconds", "(the upstream's)", "How long an upstream may take on this route."),
    {"cache", BOOL | MAP, .group = &route_cache_group, .doc = "false: never cache, nor coalesce; or settings of this route."},
    {"priority", INT, .fallback = "0", .min = -1000000, .max = 1000000,
     .doc = "Routes with a higher one are looked at first."},
    {"hedge", MAP, .group = &hedge_group, .doc = "Start a second upstream when the first is slow."},
    {"on_disconnect", STR, .fallback = "cancel", .words = "cancel finish",
     .doc = "When the client leaves: cancel the upstream, or let it finish for the cache (where the answer is to be cached)."},
    {"lossy", STR, .fallback = "(sampling and the like are dropped, the rest is refused)", .words = "refuse allow",
     .doc = "What a translation cannot express: refuse the request, or drop it and say so in x-openclaw-dropped."},
    {0}};
GROUP(route, "Which requests go where. The most specific matching route wins.");

static const struct claw_conf_rule route_item = {.key = "", .is = MAP, .group = &route_group};

/* ---- limits, security, cache ------------------------------------------------------------------------------ */

static const struct claw_conf_rule per_item = {.key = "", .is = STR, .words = "ip client user header:*"};
static const struct claw_conf_rule rate_limit_rules[] = {
    {"id", STR, .format = CLAW_CONF_NAME, .fallback = "(limit_<n>)", .doc = "Name, seen in metrics."},
    {"match", MAP, .group = &match_group, .doc = "Which requests count; all when not given."},
    {"per", STR | LIST, .words = "ip client user header:*", .each = &per_item,
     .doc = "A count of its own for each: ip, client, user or header:NAME."},
    RATES,
    {0}};
GROUP(rate_limit, "A limit over all workers.");
static const struct claw_conf_rule rate_limit_item = {.key = "", .is = MAP, .group = &rate_limit_group};

static const struct claw_conf_rule security_rules[] = {
    {"ip_whitelist", LIST, .each = &cidr_rule, .doc = "Only these addresses and networks may ask."},
    {"ip_blacklist", LIST, .each = &cidr_rule, .doc = "These may not, even when whitelisted."},
    {0}};
GROUP(security, "Who may ask, by address.");

static const struct claw_conf_rule cache_strategy_rules[] = {
    {"id", STR, .format = CLAW_CONF_NAME, .doc = "Name."},
    {"match", MAP, .group = &match_group, .doc = "Which requests."},
    SECONDS("ttl_seconds", "(default_ttl_seconds)", "How long an answer is kept."),
    {0}};
GROUP(cache_strategy, "Which answers are cached, and how long.");
static const struct claw_conf_rule cache_strategy_item = {.key = "", .is = MAP, .group = &cache_strategy_group};

static const struct claw_conf_rule caching_rules[] = {
    {"enabled", BOOL, .fallback = "(false, but for routes with cache)",
     .doc = "Cache complete answers of status 200, to requests of up to 4 MB. Cache-Control of a request (no-cache, no-store, max-age) is honoured."},
    {"coalesce", BOOL, .fallback = "(true where answers are cached)",
     .doc = "Identical requests under way, on any worker, share one upstream call, streams too. true: also where nothing is cached."},
    SECONDS("default_ttl_seconds", "3600", "How long an answer is kept."),
    WHOLE("max_size_mb", "MB", "100", 1, 1048576, "Most memory for cached answers, all counted, and as much again for those on their way, twice as much while others wait for the same. An answer of more than 1/128 of it is not kept."),
    {"scope", STR, .fallback = "(client when clients are given, else shared)", .words = "client shared",
     .doc = "Who shares cached answers."},
    {"backend", STR, .fallback = "memory", .words = "memory redis",
     .doc = "Where answers are kept. redis: in memory, and in state.url's, for all instances with the same state.prefix and secret."},
    {"secret", STR, SECRET | CLAW_CONF_NOT_EMPTY,
     .doc = "backend redis: what the names of answers are made with, so that nobody who does not know it can make two requests be taken "
            "for the same. 16 characters or more; a change needs a restart."},
    {"strategies", LIST, .each = &cache_strategy_item,
     .doc = "What is cached or coalesced: what one of them matches, the most specific first; everything when not given."},
    {0}};
GROUP(caching, "Answers kept for identical requests.");

/* ---- transformations, logging, policies ------------------------------------------------------------------- */

static const struct claw_conf_rule script_rules[] = {
    {"script", STR, NEED | CLAW_CONF_NOT_EMPTY, CLAW_CONF_NAME,
     .doc = "A Lua file in policies.dir: a policy, or a file that returns a function."}, {0}};
GROUP(script, "A script of a transformation.");

static const struct claw_conf_rule transformation_rules[] = {
    {"id", STR, .format = CLAW_CONF_NAME, .doc = "Name, seen in logs."},
    {"match", MAP, .group = &match_group, .doc = "Which requests; all when not given."},
    {"request", MAP, .group = &script_group, .doc = "Changes the request's body."},
    {"response", MAP, .group = &script_group, .doc = "Changes the response's body."},
    {0}};
GROUP(transformation, "Changes to bodies on their way.");
static const struct claw_conf_rule transformation_item = {.key = "", .is = MAP, .group = &transformation_group};

static const struct claw_conf_rule logging_rules[] = {
    {"format", STR, .fallback = "json", .words = "json text", .doc = "One JSON object a line, or text."},
    {"level", STR, .fallback = "info", .words = "debug info warn error",
     .doc = "Least important lines to write; debug says why routes did not match."},
    {"output", STR, .fallback = "stdout", .words = "stdout stderr file", .doc = "Where to."},
    {"path", STR, CLAW_CONF_NOT_EMPTY, .doc = "The file, with output: file."},
    {"decisions", STR, CLAW_CONF_NOT_EMPTY,
     .doc = "A file that gets one JSON line a request, for -replay: what came (without credentials; bodies up to 64 KB, "
            "which hold what users wrote) and what was decided. None when not given."},
    {"bodies", BOOL, .fallback = "false", .doc = "Put how bodies began into the log line, 4 KB of each: request_body as the client sent it, response_body as it got it (a stream's events too). They hold what users wrote. What is no text is left out."},
    {0}};
GROUP(logging, "One line a request.");

static const struct claw_conf_rule metadata_rules[] = {{"*", CLAW_CONF_IS_ANY,
     .doc = "Anything; policies see it."}, {0}};
GROUP(metadata, "Free data.");
static const struct claw_conf_rule rollback_rules[] = {
    WHOLE("errors", "requests", "10", 1, 1e6, "At least so many requests failed by policies."),
    {"percent", NUM, .unit = "percent", .fallback = "20", .max = 100, .doc = "And at least this part of its requests."},
    SECONDS("window_seconds", "600", "How long a new generation is watched."),
    {0}};
GROUP(rollback, "When a new generation is taken back.");

static const struct claw_conf_rule policies_rules[] = {
    {"dir", STR, CLAW_CONF_NOT_EMPTY, .fallback = "policies", .doc = "Folder of policies, relative to this file."},
    {"always", LIST, .each = &name_rule, .doc = "Policies that run on every request, in this order."},
    {"settings", MAP, .group = &metadata_group,
     .doc = "Settings of policies: a map under each policy's name. init finds it as conf.policies.settings.NAME."},
    {"shadow", LIST, .each = &name_rule,
     .doc = "Policies, by name or glob, that decide and change nothing: where one differs from what was decided, the log says so."},
    WHOLE("budget_ms", "ms", "10", 1, 60000, "CPU time one call of a policy's hook may take; then it is stopped, and the request fails. Loading a file: 10 times that."),
    WHOLE("memory_mb", "MB", "32", 1, 4096, "Memory for Lua in each worker. The call that would take more fails."),
    {"allow_private", LIST, .each = &place_rule,
     .doc = "Networks and host names that claw.http.fetch may reach although their addresses are private; none by default."},
    {"env", LIST, .each = &variable_rule,
     .doc = "Environment variables that claw.env may read, as they were when the configuration was loaded. The values of those "
            "with KEY, TOKEN, SECRET or PASSWORD in their names never appear in a log."},
    WHOLE("max_fetches", "requests", "1000", 1, 100000, "Most claw.http.fetch under way in each worker."),
    {"rollback", BOOL | MAP, .fallback = "true", .group = &rollback_group,
     .doc = "Return to the last good generation when policies of a new one fail too many requests; false: never."},
    SECONDS("drain_max_seconds", "3600", "Requests of an older generation are cut so long after a newer one took over."),
    WHOLE("store_mb", "MB", "16", 1, 65536, "Memory for claw.store, which all workers share; the least used goes when it is full."),
    {0}};
GROUP(policies, "Lua policies.");

/* ---- clients, webhooks, state, metrics, tracing, prices ----------------------------------------------------- */

static const struct claw_conf_rule limits_rules[] = {RATES, {0}};
GROUP(limits, "Limits of one client.");

static const struct claw_conf_rule budget_rules[] = {
    {"usd", NUM, NEED, .unit = "USD", .max = 1e9, .doc = "Most to spend in a period."},
    {"per", STR, .fallback = "month", .words = "day week month total", .doc = "The period."},
    {"soft_stop", BOOL, .fallback = "false",
     .doc = "End a running stream that reaches the budget as one of the greatest length ends: OpenAI's chat and completions, Anthropic's messages and Gemini's, but not what is cached or shared."},
    {0}};
GROUP(budget, "Spending of one client.");

static const struct claw_conf_rule client_rules[] = {
    {"name", STR, NEED, CLAW_CONF_NAME, .doc = "Unique name."},
    {"key", STR, SECRET | CLAW_CONF_NOT_EMPTY, CLAW_CONF_HEADER, .doc = "The key it sends."},
    {"key_sha256", STR, .format = CLAW_CONF_HEX256, .doc = "SHA-256 of the key in hexadecimal, instead of key."},
    {"tier", STR, .format = CLAW_CONF_NAME, .doc = "Free word for match.client.tier."},
    {"models", LIST, .each = &name_rule, .doc = "Models (or globs) it may use; all when not given. With it a body in which no model is found (a form, a batch) is refused."},
    {"routes", LIST, .each = &name_rule, .doc = "Routes it may use; all when not given."},
    {"metadata", MAP, .group = &metadata_group, .doc = "Free data for policies and logs."},
    {"limits", MAP, .group = &limits_group, .doc = "Its own rate limits."},
    {"budget", MAP, .group = &budget_group, .doc = "Its own spending limit."},
    {0}};
GROUP(client, "Who may ask. With clients given, a request without a known key gets 401.");
static const struct claw_conf_rule client_item = {.key = "", .is = MAP, .group = &client_group};

static const struct claw_conf_rule webhook_event_item = {.key = "", .is = STR,
    .words = "failover rate_limit upstream_error key_retired breaker budget reload policy_error"};
static const struct claw_conf_rule webhook_rules[] = {
    {"url", STR, NEED, CLAW_CONF_URL, .doc = "Where to POST events."},
    {"events", LIST, .each = &webhook_event_item, .doc = "Which events; all when not given."},
    {"secret", STR, SECRET, .doc = "Key of the HMAC signature."},
    {"headers", MAP, .group = &header_group, .doc = "Headers to send along."},
    SECONDS("timeout_seconds", "10", "Time for one delivery."),
    WHOLE("attempts", NULL, "5", 1, 20, "Most attempts of one delivery."),
    WHOLE("max_queue", "events", "1000", 1, 1e6, "Most events that wait; the oldest is dropped and counted."),
    {0}};
GROUP(webhook, "Events sent to other systems, never on a request's path.");
static const struct claw_conf_rule webhook_item = {.key = "", .is = MAP, .group = &webhook_group};

static const struct claw_conf_rule state_rules[] = {
    {"backend", STR, .fallback = "memory", .words = "memory redis",
     .doc = "Where limits, budgets and cooldowns live: redis shares them between all instances that name the same state.url and "
            "state.prefix. While that Redis does not answer each instance goes by what it knows itself."},
    {"url", STR, SECRET, CLAW_CONF_REDIS,
     .doc = "redis://user:password@host:port/db of the Redis that claw.redis asks: port 6379 and database 0 unless given, user and "
            "password percent-encoded and not required. No TLS (rediss://)."},
    {"prefix", STR, CLAW_CONF_NOT_EMPTY, CLAW_CONF_NAME, .fallback = "openclaw",
     .doc = "backend redis: what the names of all keys begin with there, and a colon. Instances that share have the same one."},
    WHOLE("timeout_ms", "ms", "100", 10, 10000,
          "backend redis: how long a request waits for its answer at most; then, and until Redis answers in that time again, what the "
          "instance knows itself decides."),
    SECONDS("lease_seconds", "15", "backend redis: how long a place of a limit on concurrent requests stays taken when its instance has died; "
            "those alive say so three times in it."),
    {"path", STR, CLAW_CONF_NOT_EMPTY, .fallback = "(openclaw.db when a client has a budget, else none)",
     .doc = "SQLite file of the ledger: what each client spent on which model by the hour, and the spend that budgets are held "
            "against; a restart finds it again. Beside this file unless absolute, openclaw.db in $STATE_DIRECTORY where systemd or the "
            "container image set it; made when it is not there."},
    WHOLE("keep_days", "days", "400", 1, 36500, "Hours older than this are forgotten by the ledger."),
    {0}};
GROUP(state, "What is remembered beyond a request.");

static const struct claw_conf_rule metrics_rules[] = {
    {"enabled", BOOL, .fallback = "true", .doc = "Serve /metrics on the admin port; false: it answers 404."},
    WHOLE("max_series", "series", "10000", 100, 1e6,
          "Most label sets, policies' own not counted; at most half of them tell of models. Further ones are counted together, as `other`."),
    {0}};
GROUP(metrics, "Prometheus metrics.");

static const struct claw_conf_rule collector_header_rules[] = {
    {"*", STR, SECRET, CLAW_CONF_HEADER, .doc = "Header name and value."}, {0}};
GROUP(collector_header, "Headers towards the collector; all values are kept secret.");

static const struct claw_conf_rule tracing_rules[] = {
    {"endpoint", STR, NEED, CLAW_CONF_URL, .doc = "OTLP/HTTP receiver, which takes JSON; a URL without a path gets /v1/traces."},
    {"headers", MAP, .group = &collector_header_group, .doc = "Headers to send along, such as the collector's key."},
    {"service_name", STR, .format = CLAW_CONF_NAME, .fallback = "openclaw-proxy",
     .doc = "service.name of the spans."},
    {"sample_ratio", NUM, .fallback = "1", .max = 1,
     .doc = "Part of the requests without a valid traceparent that is traced, decided by the trace's id; one with it is traced when that is sampled."},
    {"trust_parents", BOOL, .fallback = "true",
     .doc = "Go on with the traces of clients' traceparent; false: each request begins one of its own."},
    SECONDS("interval_seconds", "1", "What ended meanwhile is exported together, sooner when much has."),
    SECONDS("timeout_seconds", "10", "Time for one export."),
    WHOLE("attempts", NULL, "5", 1, 20, "Most attempts of one export."),
    WHOLE("max_queue", "requests", "4096", 1, 1e6, "Most requests whose spans wait; those of further ones are dropped and counted."),
    SECONDS("flush_seconds", "5", "Time for what waits when the proxy stops, beyond server.drain_seconds."),
    {0}};
GROUP(tracing, "Spans of each request and of each attempt, with OpenTelemetry's HTTP and GenAI conventions.");

static const struct claw_conf_rule price_rules[] = {PRICES, {0}};
GROUP(price, "Prices of a model.");
static const struct claw_conf_rule prices_rules[] = {
    {"*", MAP, .group = &price_group, .doc = "Model (or glob) and its prices."}, {0}};
GROUP(prices, "Prices by model, where the upstream does not say. Where neither does: the provider's list, as far as the binary knows it.");

static const struct claw_conf_rule vault_rules[] = {
    {"address", STR, .format = CLAW_CONF_URL, .fallback = "(VAULT_ADDR)", .doc = "URL of the server, http or https."},
    {"token", STR, SECRET, CLAW_CONF_HEADER, .fallback = "(VAULT_TOKEN)", .doc = "Token that may read the secrets."},
    {"token_file", STR, CLAW_CONF_NOT_EMPTY, CLAW_CONF_NAME,
     .doc = "File that holds the token, as an agent keeps it; read each time secrets are fetched."},
    {"namespace", STR, .format = CLAW_CONF_HEADER, .fallback = "(VAULT_NAMESPACE)", .doc = "Namespace of the paths."},
    WHOLE("kv_version", NULL, "2", 1, 2, "Version of the KV engine: with 2, data/ is put behind the first part of a path that has no /data/; with 1, a path is used as it is."),
    {"tls", MAP, .group = &upstream_tls_group, .doc = "TLS with the server; ca is VAULT_CACERT, server_name VAULT_TLS_SERVER_NAME unless given."},
    {0}};
GROUP(vault, "HashiCorp Vault, or what speaks its KV protocol (OpenBao).");

static const struct claw_conf_rule aws_sm_rules[] = {
    {"access_key_id", STR, SECRET, CLAW_CONF_HEADER, .fallback = "(AWS_ACCESS_KEY_ID, with the secret and token beside it)", .doc = "Id of the access key."},
    {"secret_access_key", STR, SECRET, CLAW_CONF_HEADER, .doc = "The key's secret; needed with access_key_id."},
    {"session_token", STR, SECRET, CLAW_CONF_HEADER, .doc = "Of temporary credentials."},
    INSTANCE_ROLE,
    {"region", STR, .format = CLAW_CONF_NAME, .fallback = "(AWS_REGION, AWS_DEFAULT_REGION)", .doc = "Region of the secrets; an ARN says its own."},
    {"endpoint", STR, .format = CLAW_CONF_URL, .fallback = "(Amazon's of the region; AWS_ENDPOINT_URL_SECRETS_MANAGER, AWS_ENDPOINT_URL)",
     .doc = "URL to ask instead, such as an endpoint within a network."},
    {0}};
GROUP(aws_sm, "AWS Secrets Manager.");

static const struct claw_conf_rule secrets_rules[] = {
    {"refresh_seconds", NUM, .unit = "seconds", .fallback = "300", .max = 2592000,
     .doc = "How often they are fetched again; one that changed makes a new generation. 0: only when the configuration is loaded by SIGHUP or POST /reload."},
    SECONDS("timeout_seconds", "10", "Time for fetching all of them."),
    {"vault", MAP, .group = &vault_group, .doc = "Where ${vault:PATH#FIELD} is."},
    {"aws", MAP, .group = &aws_sm_group, .doc = "Where ${aws-sm:NAME#FIELD} is."},
    {0}};
GROUP(secrets, "Where ${vault:PATH#FIELD} and ${aws-sm:NAME-OR-ARN#FIELD}, which may stand in any value outside of this section, come from. At "
      "most 64 secrets; each is fetched once, whatever fields of it are used. ${aws-sm:NAME} without a field is the whole text.");

static const struct claw_conf_rule config_rules[] = {
    {"server", MAP, .group = &server_group, .doc = "How clients reach the proxy."},
    {"admin", MAP, .group = &admin_group, .doc = "Health, metrics and control."},
    {"upstreams", MAP | LIST, NEED, .group = &upstreams_group, .each = &upstream_item,
     .doc = "Providers, by name or as a list."},
    {"routes", LIST, NEED, .each = &route_item, .doc = "Which requests go where."},
    {"clients", LIST, .each = &client_item, .doc = "Who may ask."},
    {"rate_limits", LIST, .each = &rate_limit_item, .doc = "Limits."},
    {"security", MAP, .group = &security_group, .doc = "Who may ask, by address."},
    {"caching", MAP, .group = &caching_group, .doc = "Answers kept for identical requests."},
    {"transformations", LIST, .each = &transformation_item, .doc = "Changes to bodies on their way."},
    {"retry", MAP, .group = &retry_group, .doc = "Trying again, for all routes."},
    {"policies", MAP, .group = &policies_group, .doc = "Lua policies."},
    {"prices", MAP, .group = &prices_group, .doc = "Prices by model."},
    {"logging", MAP, .group = &logging_group, .doc = "Logs."},
    {"metrics", MAP, .group = &metrics_group, .doc = "Prometheus metrics."},
    {"tracing", MAP, .group = &tracing_group, .doc = "Traces."},
    {"webhooks", LIST, .each = &webhook_item, .doc = "Events sent to other systems."},
    {"state", MAP, .group = &state_group, .doc = "State shared by several instances."},
    {"secrets", MAP, .group = &secrets_group, .doc = "Values from Vault and AWS Secrets Manager."},
    {0}};
GROUP(config, "The whole file.");

const struct claw_conf_group *claw_conf_schema_root(void) { return &config_group; }

const struct claw_conf_rule *claw_conf_rule_of(const struct claw_conf_group *g, struct claw_str key)
{
    const struct claw_conf_rule *any = NULL;
    for (const struct claw_conf_rule *r = g->rules; r->key; r++) {
        if (claw_str_eqz(key, r->key)) return r;
        if (strcmp(r->key, "*") == 0) any = r;
    }
    return any;
}

const struct claw_conf_rule *claw_conf_rule_at(const char *path)
{
    const struct claw_conf_group *g = &config_group;
    for (;;) {
        struct claw_str key = {path, strcspn(path, ".")};
        const struct claw_conf_rule *r = claw_conf_rule_of(g, key);
        CLAW_ASSERT(r);
        if (!path[key.len]) return r;
        g = r->each && !(r->is & MAP) ? r->each->group : r->group;
        CLAW_ASSERT(g);
        path += key.len + 1;
    }
}

bool claw_conf_key_secret(struct claw_str key)
{
    static const char *const globs[] = {"*authorization*", "*api-key*", "*api_key*", "*apikey*", "*token*",
                                        "*secret*", "*password*", "cookie", "set-cookie"};
    char low[128];
    if (key.len > sizeof low) return true; /* too long to tell */
    for (size_t i = 0; i < key.len; i++)
        low[i] = key.ptr[i] >= 'A' && key.ptr[i] <= 'Z' ? (char)(key.ptr[i] + 32) : key.ptr[i];
    for (size_t i = 0; i < sizeof globs / sizeof *globs; i++)
        if (claw_str_glob(claw_str_of(globs[i]), (struct claw_str){low, key.len})) return true;
    return false;
}

bool claw_conf_word_next(const char **words, struct claw_str *out)
{
    while (**words == ' ') ++*words;
    *out = (struct claw_str){*words, strcspn(*words, " ")};
    *words += out->len;
    return out->len > 0;
}
