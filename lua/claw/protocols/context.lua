-- context: what a protocol's functions need from outside, for one attempt (`cx` in README.md), and what `lossy` means.
--
--   lossy       hint                  content, tool, schema
--   nil         listed                refused
--   "allow"     listed                listed
--   "refuse"    refused               refused

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

-- What a refused request raises: a 400 for the client, naming the field.
local function refuse(message, param)
    error({ status = 400, message = message, param = param }, 0)
end

-- spec: lossy (nil, "allow", "refuse"); parse(text), decode(text); model, asked, provider, now, wants_usage, request;
-- unique: text that no other attempt has (ids are made of its letters and digits).
-- The result has `dropped`: { field, class, why } in order, each field once, at most 32.
-- Set `answering` once the request is sent: what an answer loses is only listed, for there is nothing to refuse then.
function M.new(spec)
    local cx = { parse = spec.parse, decode = spec.decode, model = spec.model, asked = spec.asked,
        provider = spec.provider or {}, now = spec.now or 0, wants_usage = spec.wants_usage, request = spec.request,
        refuse = refuse, id = ids(spec.unique or ""), dropped = {} }
    cx.each = spec.parse("[]").each -- a document's own each() may be hidden by a member of that name
    local lossy, seen = spec.lossy, {}

    function cx.drop(field, class, why)
        field = tostring(field):gsub("[^%w_.%[%]-]", "?"):sub(1, FIELD)
        if not cx.answering and lossy ~= "allow" and (class ~= "hint" or lossy == "refuse") then
            local said = why and " (" .. why .. ")" or ""
            refuse(('"%s" has no counterpart at the upstream this request goes to%s'):format(field, said), field)
        end
        if seen[field] or #cx.dropped >= LISTED then return end
        seen[field] = true
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
