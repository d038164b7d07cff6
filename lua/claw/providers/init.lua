-- providers: one table of data per upstream type. A table says
--   family        whose secrets (signatures of reasoning) it understands, and whose models it has
--   auth          { header, prefix } of the key, or false
--   headers       { { name, value }, … } every request to it carries
--   protocols     { { name, path, stream = path }, … }, preferred first: what it speaks and where, below base_url.
--                 {model} stands for the model that is sent, {api_version} for the upstream's api_version; stream is
--                 where streams are asked for, when elsewhere. Names are those of claw.dialect and claw.protocols. Not
--                 given: it speaks whatever a client speaks, and paths stay as they came. A row's own `fields` stand
--                 in the table's place
--   version       what stands before the paths when base_url has no path of its own (http://host:8000)
--   forms         { { ends = pattern, … }, … }: the first whose pattern ends base_url's path says otherwise
--   fields        { [name] = value }: a field every body gets that has none; false: one that is taken out
--   stream_usage  does it know stream_options.include_usage?
--   api_version   the usual one
--   tool_id_length    calls' ids are letters and digits, so many (else as they came, 40 at most)
--   reasoning_field   the field of a turn in which it takes its reasoning back (else it gets none)
--   cache_control     does it take Anthropic's marks for its cache in an OpenAI body?
--   document_url      does it take a document's URL in an OpenAI body?
--   top_k             does it take top_k in an OpenAI body?
--   responses_fields  the fields of OpenAI's Responses that its chat has, too: it is OpenAI's own
--   lacks             fields of OpenAI's chat that it refuses
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

-- A body, a table or a document, with the fields of a provider's table.
function M.fill(body, fields)
    for name, value in pairs(fields) do
        if value == false then body[name] = nil
        elseif body[name] == nil then body[name] = value end
    end
    return body
end

-- The rows of a type's protocols that an upstream's `protocols` names, in its order; or nil, message.
local function chosen(rows, names, kind)
    if not names then return rows or {} end
    local known, out, by_name = {}, {}, {}
    for i, row in ipairs(rows or {}) do known[i], by_name[row[1]] = row[1], row end
    if not known[1] then return nil, ("%s speaks whatever its clients do"):format(kind) end
    for i, name in ipairs(names) do
        out[i] = by_name[name]
        if not out[i] then
            return nil, ('"%s" is none of those it speaks there: %s'):format(tostring(name), table.concat(known, ", "))
        end
    end
    return out
end

-- The static part of an upstream's head, and where it speaks what: { auth, headers, protocols = { name … }, paths =
-- { [name] = { path, stream's path } }, fields = { [name] = … }, stream_usage, table, kind }; nil, message and wrong
-- key for an unknown type or protocol.
-- base_url: its own or its type's usual one; settings: the upstream's node.
function M.upstream(kind, base_url, settings)
    local t = M.tables[kind]
    if not t then
        return nil, ('unknown provider type "%s"%s'):format(tostring(kind), suggest.hint(kind, M.NAMES)), "type"
    end
    local path = ((base_url or ""):match("^%a+://[^/]+(.-)/*$") or "")
    t = formed(t, path)
    local prefix = path == "" and t.version or ""
    local api_version = settings and settings.api_version or t.api_version or ""
    local out = { auth = t.auth, headers = t.headers or {}, protocols = {}, paths = {}, table = t, kind = kind,
        stream_usage = t.stream_usage == true, fields = {} }
    local rows, message = chosen(t.protocols, settings and settings.protocols, kind)
    if not rows then return nil, message, "protocols" end
    for i, row in ipairs(rows) do
        local plain = filled(row[2], prefix, api_version)
        out.protocols[i] = row[1]
        out.fields[row[1]] = row.fields or t.fields
        out.paths[row[1]] = { plain, filled(row.stream, prefix, api_version) or plain }
    end
    return out
end

return M
