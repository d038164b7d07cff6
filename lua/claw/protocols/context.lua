-- context: what a protocol's functions need from outside, for one attempt (`cx` in README.md), and what `lossy` means.
--
--   lossy       hint                  content, tool, schema
--   nil         listed                refused
--   "allow"     listed                listed
--   "refuse"    refused               refused

local wording = require("claw.protocols.wording")

local M = {}

local LISTED = 32     -- fields in cx.dropped
local FIELD = 64      -- bytes of a field's name: it may come from the client, and goes into a header
local UNIQUE = 24     -- letters and digits of an id

local DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

local function base36(n, width)
    local out = {}
    for i = width, 1, -1 do
        local digit = n % 36
        out[i] = DIGITS:sub(digit + 1, digit + 1)
        n = (n - digit) / 36
    end
    return table.concat(out)
end

local function ids(unique)
    local head = (unique:gsub("[^%w]", "") .. ("0"):rep(UNIQUE)):sub(1, UNIQUE - 4)
    local n = -1
    return function(prefix)
        n = n + 1
        return prefix .. head .. base36(n, 4)
    end
end

local function clean(field)
    return (tostring(field):gsub("[^%w_.%[%]-]", "?"):sub(1, FIELD))
end

-- spec: lossy (nil, "allow", "refuse"); parse(text), decode(text); model, asked, provider, now, wants_usage, request;
-- unique: text that no other attempt has (ids are made of its letters and digits).
-- wording, body (nil: none): the client's protocol's and its request, by which fields are named (wording.lua).
-- The result has `dropped`: { field, class, why } in order, each field once, at most 32.
-- Set `answering` once the request is sent: what an answer loses is only listed, for there is nothing to refuse then.
function M.new(spec)
    local cx = { parse = spec.parse, decode = spec.decode, model = spec.model, asked = spec.asked,
        provider = spec.provider or {}, now = spec.now or 0, wants_usage = spec.wants_usage, request = spec.request,
        id = ids(spec.unique or ""), dropped = {} }
    cx.each = spec.parse("[]").each -- a document's own each() may be hidden by a member of that name
    local lossy, seen, words, body = spec.lossy, {}, spec.wording, spec.body

    local function named(field)
        if not words or cx.answering then return field end
        return wording.path(words, body, field)
    end

    -- What a refused request raises: a 400 for the client, naming the field.
    function cx.refuse(message, param)
        error({ status = 400, message = message, param = param and named(param) }, 0)
    end

    function cx.drop(given, class, why)
        local refused = not cx.answering and lossy ~= "allow" and (class ~= "hint" or lossy == "refuse")
        if not refused and (seen[given] or #cx.dropped >= LISTED) then return end
        local field = clean(named(tostring(given)))
        if refused then
            local said = why and " (" .. why .. ")" or ""
            local message = ('"%s" has no counterpart at the upstream this request goes to%s'):format(field, said)
            error({ status = 400, message = message, param = field }, 0)
        end
        local listed = seen[field]
        seen[given], seen[field] = true, true
        if listed then return end
        cx.dropped[#cx.dropped + 1] = { field = field, class = class, why = why }
    end

    return cx
end

-- What was dropped, for a header: fields with commas between, or nil.
function M.header(cx)
    local names = {}
    for i, entry in ipairs(cx.dropped) do names[i] = entry.field end
    return names[1] and table.concat(names, ",")
end

return M
