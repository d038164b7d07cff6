-- providers: one table of data per upstream type. A table says
--   family        whose secrets (signatures of reasoning) it understands, and whose models it has
--   auth          { header, prefix } of the key, or false
--   headers       { { name, value }, … } every request to it carries
--   protocols     { { name, path, stream = path }, … }, preferred first: what it speaks and where, below base_url.
--                 {model} stands for the model that is sent, {api_version} for the upstream's api_version; stream is
--                 where streams are asked for, when elsewhere. Names are those of claw.dialect and claw.protocols. Not
--                 given: it speaks whatever a client speaks, and paths stay as they came
--   version       what stands before the paths when base_url has no path of its own (http://host:8000)
--   forms         { { ends = pattern, … }, … }: the first whose pattern ends base_url's path says otherwise
--   stream_usage  does it know stream_options.include_usage?
--   api_version   the usual one
--   tool_id_length    calls' ids are letters and digits, so many (else as they came, 40 at most)
--   reasoning_field   the field of a turn in which it takes its reasoning back (else it gets none)
--   cache_control     does it take Anthropic's marks for its cache in an OpenAI body?
--   document_url      does it take a document's URL in an OpenAI body?
--   top_k             does it take top_k in an OpenAI body?
--   call_ids          Gemini: false, it takes no calls' ids
--   remote_files      Gemini: does it fetch a URL that is none of its own files?
-- and what else a protocol's module asks for as a quirk; max_output, the sent model's longest answer, is not said
-- here: claw.translate takes it from the catalog. A type's usual base_url stands in core/base/conf_link.c: it is
-- needed before any Lua runs.

local suggest = require("claw.suggest")

local M = {}

M.NAMES = {
    "openai", "anthropic", "gemini", "google", "vertex", "azure", "bedrock", "mistral", "cohere", "ollama", "generic",
    "groq", "deepseek", "openrouter", "together", "fireworks", "xai", "perplexity", "huggingface", "vllm", "nvidia",
    "mock",
}

M.tables = {}
for _, name in ipairs(M.NAMES) do M.tables[name] = require("claw.providers." .. name) end

-- The table as its form for this base_url has it.
local function formed(t, path)
    for _, form in ipairs(t.forms or {}) do
        if path:find(form.ends .. "$") then
            return setmetatable({ version = "" }, { __index = function(_, key)
                if form[key] ~= nil then return form[key] end
                return t[key]
            end })
        end
    end
    return t
end

local function filled(template, prefix, api_version)
    if not template then return nil end
    return ((prefix .. template):gsub("{api_version}", function() return api_version end))
end

-- The static part of an upstream's head, and where it speaks what: { auth, headers, protocols = { name … }, paths =
-- { [name] = { path, stream's path } }, stream_usage, table, kind }; nil, message for an unknown type.
-- base_url: its own or its type's usual one; settings: the upstream's node.
function M.upstream(kind, base_url, settings)
    local t = M.tables[kind]
    if not t then
        return nil, ('unknown provider type "%s"%s'):format(tostring(kind), suggest.hint(kind, M.NAMES))
    end
    local path = ((base_url or ""):match("^%a+://[^/]+(.-)/*$") or "")
    t = formed(t, path)
    local prefix = path == "" and t.version or ""
    local api_version = settings and settings.api_version or t.api_version or ""
    local out = { auth = t.auth, headers = t.headers or {}, protocols = {}, paths = {}, table = t, kind = kind,
        stream_usage = t.stream_usage == true }
    for i, row in ipairs(t.protocols or {}) do
        local plain = filled(row[2], prefix, api_version)
        out.protocols[i] = row[1]
        out.paths[row[1]] = { plain, filled(row.stream, prefix, api_version) or plain }
    end
    return out
end

return M
