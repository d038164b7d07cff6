-- request: an OpenAI completions request as one turn of the user. What turns cannot say is refused: text behind the
-- answer (suffix), the prompt told back (echo), several prompts, prompts that are tokens, the best of several.
--
-- max_tokens stays what the client says: the protocol's own default (16) was made for models that only continue.

local chat = require("claw.protocols.openai_chat.request")
local fields = require("claw.protocols.fields")

local M = {}

local text_of, count = fields.text, fields.count

-- Fields that say here what they say in chat requests.
local SAME = { "model", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "n",
    "presence_penalty", "frequency_penalty", "logit_bias", "user", "metadata", "service_tier", "stream_options",
    "reasoning_effort" }

local KNOWN = { prompt = true, suffix = true, echo = true, best_of = true, logprobs = true }
for _, name in ipairs(SAME) do KNOWN[name] = true end

M.wording = { stop_sequences = "stop", reasoning = "reasoning_effort", messages = "prompt" }

local function read_prompt(body, cx)
    local prompt = body.prompt
    local list = fields.array(prompt)
    if list then
        if #list > 1 and type(list[1]) == "string" then
            cx.refuse("several prompts in one request cannot go to a chat model", "prompt")
        end
        prompt = list[1]
    end
    if type(prompt) == "number" or fields.array(prompt) then
        cx.refuse("a prompt of tokens cannot go to another provider", "prompt")
    end
    if not text_of(prompt) then cx.refuse('"prompt" must be a text', "prompt") end
    return prompt
end

function M.read(body, cx)
    if not fields.object(body) then cx.refuse("the body must be a JSON object") end
    local prompt = read_prompt(body, cx)
    if fields.says(body.suffix) then cx.refuse("a chat model cannot write in front of a suffix", "suffix") end
    if body.echo == true then cx.refuse("a chat model cannot tell its prompt back", "echo") end
    local best = count(body.best_of)
    if best and best > (count(body.n) or 1) then cx.refuse("a chat model gives no best of several", "best_of") end
    local same = { messages = { { role = "user", content = prompt } } }
    for _, name in ipairs(SAME) do
        if fields.says(body[name]) then same[name] = body[name] end
    end
    local r = chat.read(same, { refuse = cx.refuse, drop = cx.drop, id = cx.id, each = pairs, parse = cx.parse })
    r.dialect = "openai_completions"
    local logprobs = count(body.logprobs)
    if logprobs then r.logprobs, r.top_logprobs = true, logprobs > 0 and logprobs or nil end
    for name, v in cx.each(body) do
        if not KNOWN[name] and fields.says(v) then
            r.rest = r.rest or {}
            r.rest[name] = v
        end
    end
    return r
end

return M
