---@meta
-- What policies see, for editors that speak LuaLS: add lua/openclaw to Lua.workspace.library. docs/policy-reference.md is
-- written from this file (make docs), and a spec holds it against the library. A line "Waits." stands for: only in hooks
-- that may wait; "Errors:" tells of values, "Raises:" of failures of the hook.

---A policy file returns one of these.
---@class claw.Policy
---@field name? string the file's name, without .lua
---@field api 1
---@field on_error? "fail"|"skip" what a failure does to the request: 500, or nothing
---@field init? fun(conf: claw.Conf)
---@field selftest? fun()
---@field admit? fun(req: claw.Req): claw.Denial|claw.Reply|nil
---@field route? fun(req: claw.Req, candidates: claw.Candidate[]): string|claw.Order|nil
---@field choose? fun(candidates: claw.Candidate[], facts: claw.Facts, rng: fun(): number): claw.Order
---@field request? fun(req: claw.Req, body: claw.Body): claw.Body
---@field retry? fun(req: claw.Req, attempt: claw.Attempt): claw.RetryVerdict?
---@field event? fun(req: claw.Req, ev: claw.Event): claw.Event|false|claw.Event[]|nil
---@field response? fun(req: claw.Req, body: claw.Body): claw.Body
---@field cost? fun(req: claw.Req, usage: claw.Usage): integer?
---@field log? fun(req: claw.Req): table<string, any>?

---A body: a document where it is JSON, text where it is not, nil where there is none. A hook may also return a table.
---@alias claw.Body claw.Document|string|table|nil

---openclaw.yaml as tables, without credentials. A policy's own settings: conf.policies.settings.NAME.
---@class claw.Conf
---@field upstreams table
---@field routes table[]?
---@field policies { dir: string?, always: string[]?, settings: table<string, table>? }?

---The request. It and all that hangs on it dies with the request; then every use of it raises.
---@class claw.Req
---@field id string the request's id, in logs and x-openclaw-request-id
---@field method string
---@field path string the client's, without the query
---@field query string the query as it came, without the "?"
---@field dialect string? what the client speaks, by its path: "openai_chat", "openai_completions", "openai_responses", "openai_embeddings", "anthropic_messages", "anthropic_count_tokens", "gemini_generate", "gemini_embed", "gemini_embed_batch", "gemini_count_tokens", "cohere_chat", "ollama_chat", "ollama_embeddings"; nil: none of them
---@field model string? what the client asked for
---@field stream boolean did the client ask for a stream?
---@field route string? the route's id, once there is one
---@field status integer? of the answer, once there is one
---@field client claw.Client
---@field body claw.Document? what the client sent, read-only
---@field upstream claw.Upstream? who is asked now, once it is known
---@field attempts { upstream: string?, status: integer?, kind: string?, ms: number? }[] what was tried by now
---@field usage { input: integer?, output: integer?, cached: integer?, cache_write: integer?, reasoning: integer?, estimated: boolean? }?
---@field cost_micros integer? micro-dollars, once they are known
---@field ctx table notes of policies to each other, for this request; of a policy to itself: claw.state
---@field elapsed_ms number since the request began
---@field answer claw.Answer what the client gets
---@field stream_state string? of a stream: "held" (another upstream may still answer), "committed", "tool_emitted" (a tool call is on its way to the client), "done"; nil: none was asked for. From "committed" on nothing is tried again, whatever a hook says

---@class claw.Client
---@field ip string
---@field name string? of clients[], where there are any
---@field tier string? of clients[], where there are any
---@field metadata table? of clients[], as it stands there; a table of its own each time
---@field headers table<string, string> by name, in any case; what came twice is joined by ", "
---@field header fun(name: string): string?

---@class claw.Upstream
---@field name string
---@field url string its base_url
---@field model string? what is sent
---@field path string can be set: where it goes, behind base_url, of this attempt
---@field commit "event"|"token"|integer can be set until then: when this attempt's stream is let go of: with its first event (as it is), with the first text (thinking counts, too) or with so many characters of it, 1 to 65536; and at the latest with a tool call, its end, 64 KiB, or when first_byte_timeout_seconds are over. What fails before that is dropped, and the next upstream answers
---@field headers table<string, string?> can be set: headers of this attempt; nil takes one away

---@class claw.Answer
---@field headers table<string, string?> can be set until the answer's head leaves (in a stream: with its first event): fields of that head, in place of an upstream's own; nil takes one away. Not: the proxy's own, hop-by-hop ones, x-openclaw-…

---A JSON value over the original bytes: what is not touched goes out byte for byte. Fields and elements (from 1) are
---read and set like a table's, nil removes; #doc counts, tostring(doc) is its text. Whole numbers past 2^53 are strings.
---Fields of an object win over the methods; claw.doc has these as functions.
---@class claw.Document
---@field [string] any
---@field [integer] any

---@class claw.Candidate
---@field name string the upstream's
---@field type string the upstream's
---@field model string? what is sent, when it is not what was asked for; may be set
---@field weight number?
---@field percentage number?
---@field region string?
---@field context_window integer? tokens
---@field capabilities table<string, boolean>?
---@field price table? micro-dollars per million tokens: input, output, cached_input; request_micros

---Candidates or their names, in order.
---@class claw.Order
---@field [integer] claw.Candidate|string
---@field hedge? integer|string|false when the second one is asked too because the first is silent: after milliseconds, or "p95" (p50, p75, p90, p99) of its usual time to the first byte; false: never; nil: as the route says
---@field as_is? boolean true: whoever is set aside (facts.state) keeps its place in the list; else it is moved to the end

---@class claw.Facts
---@field model string?
---@field stream boolean
---@field outstanding fun(c: claw.Candidate): integer requests it works at
---@field latency_ms fun(c: claw.Candidate): number?, number? running mean of the time to the first byte, and its age; what failed counts as slow
---@field state fun(c: claw.Candidate): "closed"|"open"|"half_open" open: it is set aside for now; half_open: one request at a time asks it
---@field moved fun(route: string): number? the percentage an operator moved away from the route's first upstream; nil: none
---@field cooling_until fun(c: claw.Candidate): number? milliseconds until it may be asked again; nil: it may be; math.huge: its keys are retired
---@field cost_micros fun(c: claw.Candidate): integer? what the request may cost there
---@field input_tokens fun(): integer an estimate
---@field max_tokens fun(): integer?
---@field key fun(kind: string): string? client, user, session, prompt_prefix, header:NAME
---@field hash fun(text: string): integer

---@class claw.Denial
---@field deny integer the status, 400 to 599
---@field code? string "denied" when not given
---@field message? string

---What is answered at once, without an upstream. One of say and answer.
---@class claw.Reply
---@field say? string what the assistant says, in the dialect of the path: OpenAI's chat form, or Anthropic's, or Gemini's
---@field answer? string|table a body: text as it is, a table as JSON. To a client that asked for a stream, a table that is a whole answer of one of these dialects goes as a stream
---@field status? integer 200 to 599; 200 when not given
---@field content_type? string of a body that is no stream; when not given text/plain of a text, application/json of a table

---What failed, and what happens when every hook answers nil.
---@class claw.Attempt
---@field kind string connect, tls, timeout_first_byte, rate_limited, overloaded, auth, context_window, http_500 …
---@field status integer?
---@field n integer tries by now
---@field left integer candidates behind this one
---@field key integer? which of the upstream's keys was sent, from 1
---@field other_keys integer? further keys of it that could be sent now
---@field rotations integer? tries so far that were made again with another key
---@field state string? the upstream's: "closed", "open" or "half_open"
---@field next_index integer? the upstream that would be next
---@field index integer
---@field upstream string?
---@field retry_after_ms integer?
---@field elapsed_ms integer
---@field body string? the beginning of the error's body
---@field action "stop"|"next"|"same"
---@field after_ms integer

---One of these.
---@class claw.RetryVerdict
---@field next? true the next candidate
---@field after_ms? integer the same one, after 0 to 600000 ms; with another key, where there is one
---@field stop? true

---@class claw.Event
---@field type string? the event's name
---@field data string its data, lines joined

---@class claw.Usage
---@field input integer? cached tokens included
---@field cached integer?
---@field output integer? reasoning included
---@field reasoning integer?
---@field cache_write integer? of the input: written to the provider's cache
---@field estimated boolean? true: no upstream told it, or not all of it
---@field cost_micros integer? what it costs by the price list, and by the hooks before this one
---@field model string
---@field upstream string

---@class claw
---@field version string
claw = {}

---Write a line to the log. Fields of other types than strings are written as JSON.
---Raises: an unknown level, fields that are no table.
---@param level "debug"|"info"|"warn"|"error"
---@param message string
---@param fields? table<string, any>
function claw.log(level, message, fields) end

---A table of this policy for this request: what one hook leaves there, the next one finds.
---Raises: what is no req.
---@param req claw.Req
---@return table
function claw.state(req) end

---A number of a text, the same in every process.
---@param text string
---@return integer hash 0 to 2^32 - 1
function claw.hash(text) end

---What an answer costs at a candidate's price.
---Raises: arguments that are no tables.
---@param candidate claw.Candidate
---@param usage claw.Usage
---@return integer? micros micro-dollars; nil without a price
function claw.cost(candidate, usage) end

---@class claw.json
---@field null userdata JSON null
claw.json = {}

---The JSON text of a value. Keys are sorted; a document is its own text.
---Raises: what has no JSON form.
---@param value any
---@return string text
function claw.json.encode(value) end

---The value of a JSON text.
---Errors: EBAD_JSON.
---@param text string
---@return any value nil when it is no JSON
---@return string? message
---@return string? code
function claw.json.decode(text) end

---Mark a table as an array, so that it is [] when it is empty.
---@param t? table a new one when not given
---@return table t
function claw.json.array(t) end

claw.base64 = {}

---@param text string
---@return string base64
function claw.base64.encode(text) end

---Standard and URL alphabets are read, with or without padding.
---Errors: EINVAL.
---@param text string
---@return string? bytes
---@return string? message
---@return string? code
function claw.base64.decode(text) end

claw.re = {}

---Find a regular expression (PCRE2, UTF-8). Nothing when there is no match.
---Errors: ELIMIT (the pattern asks for too much on this text), EUTF8, ETOO_LARGE (over 1 MB).
---Raises: a bad pattern.
---@param text string
---@param pattern string
---@param init? integer where to begin; from the end when negative
---@return integer? from
---@return integer|string|nil to
---@return string|boolean ... captures; false took no part
function claw.re.find(text, pattern, init) end

---The captures, or the whole match when the pattern has none. Nothing when there is no match.
---Errors: as claw.re.find.
---Raises: a bad pattern.
---@param text string
---@param pattern string
---@return string|boolean|nil ...
function claw.re.match(text, pattern) end

---Replace matches by a text (%0 the match, %1 to %9 captures, %% a percent sign) or by what a function of the captures, or of
---the match, returns (nil or false: unchanged).
---Errors: as claw.re.find.
---Raises: a bad pattern or replacement.
---@param text string
---@param pattern string
---@param by string|function
---@param n? integer at most so many
---@return string? text
---@return integer|string n
---@return string? code
function claw.re.gsub(text, pattern, by, n) end

---An environment variable that policies.env lists; nil for any other.
---@param name string
---@return string? value
function claw.env(name) end

claw.metrics = {}

---Add to openclaw_policy_NAME_total{policy,label} in /metrics.
---Errors: ELIMIT (32 names, 500 series).
---Raises: a name that is none, a gauge's, or the proxy's own.
---@param name string a-z, 0-9 and _
---@param n? number from 0 up; 1
---@param label? string|number at most 64 bytes
---@return boolean? counted
---@return string? message
---@return string? code
function claw.metrics.count(name, n, label) end

---Set openclaw_policy_NAME{policy,label} in /metrics.
---Errors: ELIMIT (32 names, 500 series).
---Raises: a name that is none, a counter's, or the proxy's own.
---@param name string a-z, 0-9 and _
---@param n number
---@param label? string|number at most 64 bytes
---@return boolean? set
---@return string? message
---@return string? code
function claw.metrics.gauge(name, n, label) end

claw.time = {}

---@return integer ms monotonic milliseconds
function claw.time.now_ms() end

---@return integer seconds since 1970
function claw.time.now() end

---Wait. Time that a hook waits is not counted as the policy's.
---Waits.
---@param ms number
function claw.time.sleep(ms) end

claw.http = {}

---Ask somebody. With `upstream` the request goes behind that upstream's base_url, with its key: the policy never sees
---it. Options: url or upstream, path, method (POST with a body, else GET), headers, body (text, or a table
---or document: JSON), timeout_ms (5000), max_body_kb (1024). With `tracing` it carries the request's traceparent.
---Waits.
---Errors: ETIMEOUT, ECONNECT, EDENIED (a private address), ETOO_LARGE and others.
---Raises: an unknown option, neither or both of url and upstream.
---@param request string|table the URL, or all options
---@param options? table when the first is a URL
---@return { status: integer, headers: table<string, string>, body: string }? answer
---@return string? message
---@return string? code
function claw.http.fetch(request, options) end

claw.redis = {}

---A command to the Redis of state.url. A last argument that is a table holds the options: timeout_ms (1000). The reply:
---texts, numbers (texts from 2^53 on), false for no value, tables.
---Waits.
---Errors: EREDIS, EDOWN, ETIMEOUT, EBUSY, ETOO_LARGE.
---Raises: no state.url, a command that would hold up or change a connection that others use, too.
---@param command string
---@param ... string|number|table
---@return string|number|boolean|table|nil reply
---@return string? message
---@return string? code
function claw.redis.call(command, ...) end

---Run a Lua script in Redis: EVALSHA, and EVAL where the script is not known yet.
---Waits.
---Errors: as claw.redis.call.
---@param text string
---@param keys? (string|number)[]
---@param args? (string|number)[]
---@param options? { timeout_ms: integer? }
---@return string|number|boolean|table|nil reply
---@return string? message
---@return string? code
function claw.redis.script(text, keys, args, options) end

---A handle of claw.task.spawn, for claw.task.wait only.
---@class claw.Task

claw.task = {}

---Run a function beside this one: at once, until it waits. It ends with the request at the latest.
---@param fn function
---@param ... any its arguments
---@return claw.Task? handle nil when there are too many
---@return string? message
---@return string? code
function claw.task.spawn(fn, ...) end

---Wait for tasks. Of one: its results; of several: the first result of each.
---Waits.
---Errors: of one task that failed: nil, message, code.
---@param ... claw.Task
---@return any ...
function claw.task.wait(...) end

---Run a function behind the hook, whatever becomes of the request. A failure is logged. A body is gone by then: take its
---text first.
---@param fn function
---@param ... any its arguments
---@return boolean? started
---@return string? message
---@return string? code
function claw.task.background(fn, ...) end

---Keys and values that all workers share and that outlive reloads. A key (up to 256 bytes) is the policy's own, unless the
---options say shared = true. Options: ttl_ms, shared. Values are strings, numbers (exact up to 2^53) and booleans. When
---policies.store_mb are full, what was not used for longest goes.
claw.store = {}

---@param key string
---@param options? { shared: boolean? }
---@return string|number|boolean|nil value
function claw.store.get(key, options) end

---Errors: ETOO_LARGE, over 64 KB.
---Raises: a value of another type.
---@param key string
---@param value string|number|boolean
---@param options? { ttl_ms: integer?, shared: boolean? }
---@return boolean? done
---@return string? message
---@return string? code
function claw.store.set(key, value, options) end

---Set it only when there is none.
---Errors: ETOO_LARGE, over 64 KB.
---@param key string
---@param value string|number|boolean
---@param options? { ttl_ms: integer?, shared: boolean? }
---@return boolean? added
---@return string? message
---@return string? code
function claw.store.add(key, value, options) end

---Count. A new counter begins at 0 and gets the ttl.
---Errors: EINVAL, where a value is no whole number; ERANGE, where the sum reaches 2^53.
---@param key string
---@param by? integer 1 when not given
---@param options? { ttl_ms: integer?, shared: boolean? }
---@return integer? sum
---@return string? message
---@return string? code
function claw.store.incr(key, by, options) end

---Set it only when it still is `old` (nil: when there is none).
---Errors: ETOO_LARGE, over 64 KB.
---@param key string
---@param old string|number|boolean|nil
---@param new string|number|boolean
---@param options? { ttl_ms: integer?, shared: boolean? }
---@return boolean? done
---@return string? message
---@return string? code
function claw.store.cas(key, old, new, options) end

---@param key string
---@param options? { shared: boolean? }
---@return boolean? done whether something was there
function claw.store.delete(key, options) end

---The methods of documents as functions, for documents whose fields have the same names.
claw.doc = {}

---@param value any
---@return string type object, array, string, number, boolean, null; of other values Lua's
function claw.doc.type(value) end

---A plain copy: arrays are marked, null is claw.json.null.
---@param doc claw.Document
---@return any value
function claw.doc.table(doc) end

---The value at a path such as messages[-1].content; indexes are from 0, or negative from the end.
---Raises: what is no path.
---@param doc claw.Document
---@param path string
---@return any value
function claw.doc.get(doc, path) end

---Walk an object's keys or an array's indexes, in the text's order.
---@param doc claw.Document
---@return fun(): string|integer, any
function claw.doc.each(doc) end

---@param doc claw.Document an array
---@param at? integer in front of this element; the end when not given
---@param value any
function claw.doc.insert(doc, at, value) end

---@param doc claw.Document an array
---@param value any
function claw.doc.append(doc, value) end

---@param doc claw.Document an array
---@param at integer
function claw.doc.remove(doc, at) end

---The built-in strategies, to order candidates with: in `choose` with its facts, in `route` with its req.
---@class claw.route
---@field round_robin claw.Strategy
---@field weighted_round_robin claw.Strategy
---@field weighted_random claw.Strategy
---@field first_available claw.Strategy
---@field failover claw.Strategy
---@field lowest_cost claw.Strategy
---@field lowest_latency claw.Strategy
---@field canary claw.Strategy
---@field least_busy claw.Strategy
---@field sticky claw.Strategy by client
claw.route = {}

---Raises: a second argument that is neither facts nor a req.
---@alias claw.Strategy fun(candidates: claw.Candidate[], given: claw.Facts|claw.Req, rng?: fun(): number): claw.Candidate[]
