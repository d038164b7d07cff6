-- value: what a match block says about one value: a scalar, a list (any of), or an operator map. Pure.
--
-- compile() gives test(values), where values is an array of scalars (strings, numbers, booleans), empty when the
-- thing is there but holds no scalar, nil when it is not there. One of several values is enough to match.

local glob = require("claw.glob")
local pattern = require("claw.pattern")
local suggest = require("claw.suggest")

local M = {}

local OPERATORS = { "equals", "in", "contains", "matches", "exists", "gt", "gte", "lt", "lte", "not" }
local IS_OPERATOR = {}
for _, name in ipairs(OPERATORS) do IS_OPERATOR[name] = true end

local find, lower, max, sub = string.find, string.lower, math.max, string.sub
local bounded_find = ("").find -- for patterns over what clients send (core/script/pattern.h)

local function is_list(node)
    return type(node) == "table" and node[1] ~= nil
end

-- Text sources (headers, query) have no types: "5" there is the number 5 when a number is asked for.
local function scalar(node, opts)
    local kind = type(node)
    if kind == "number" then
        if opts.text then
            return function(v) return tonumber(v) == node end
        end
        return function(v) return v == node end
    elseif kind == "boolean" then
        local word = tostring(node)
        if opts.text then
            return function(v) return v == word end
        end
        return function(v) return v == node end
    elseif kind == "string" then
        if opts.glob and glob.is(node) then return glob.compile(node) end
        if opts.fold then
            local folded = lower(node)
            return function(v) return type(v) == "string" and lower(v) == folded end
        end
        return function(v) return v == node end
    end
    return nil, "expected a string, a number or a boolean, not a " .. (kind == "table" and "map" or kind)
end

local function any(nodes, make, opts)
    local tests = {}
    for i, node in ipairs(nodes) do
        local test, message = make(node, opts)
        if not test then return nil, message end
        tests[i] = test
    end
    if #tests == 1 then return tests[1] end
    return function(v)
        for i = 1, #tests do
            if tests[i](v) then return true end
        end
        return false
    end
end

local function one_or_any(node, make, opts)
    return any(is_list(node) and node or { node }, make, opts)
end

-- A long text is looked through piece by piece: a copy of it in lower case may be more than the memory there is.
local PIECE = 65536

local function lowered(node)
    local words = {}
    for i, word in ipairs(is_list(node) and node or { node }) do
        if type(word) ~= "string" then return nil, "expected a string or a list of strings" end
        words[i] = lower(word)
    end
    return words
end

local function contains(node)
    local words, message = lowered(node)
    if not words then return nil, message end
    local longest = 1
    for i = 1, #words do longest = max(longest, #words[i]) end
    return function(v)
        if type(v) ~= "string" then return false end
        for from = 1, max(#v, 1), PIECE do
            local piece = lower(#v <= PIECE and v or sub(v, from, from + PIECE + longest - 2))
            for i = 1, #words do
                if find(piece, words[i], 1, true) then return true end
            end
        end
        return false
    end
end

local function matches(node)
    if type(node) ~= "string" then return nil, "expected a Lua pattern" end
    local wrong = pattern.problem(node)
    if wrong then return nil, ('the pattern "%s" %s'):format(node, wrong) end
    return function(v) return type(v) == "string" and bounded_find(v, node) ~= nil end
end

local COMPARE = {
    gt = function(v, n) return v > n end,
    gte = function(v, n) return v >= n end,
    lt = function(v, n) return v < n end,
    lte = function(v, n) return v <= n end,
}

local function comparison(name, node, opts)
    if type(node) ~= "number" then return nil, "expected a number" end
    local compare, text = COMPARE[name], opts.text
    return function(v)
        local n = text and tonumber(v) or v
        return type(n) == "number" and compare(n, node)
    end
end

local POSITIVE = {
    equals = scalar,
    ["in"] = function(node, opts)
        if not is_list(node) then return nil, "expected a list" end
        return any(node, scalar, opts)
    end,
    contains = contains,
    matches = function(node, opts) return one_or_any(node, matches, opts) end,
}
for name in pairs(COMPARE) do
    POSITIVE[name] = function(node, opts) return comparison(name, node, opts) end
end

-- Is there one value that passes all tests?
local function holds(tests, values)
    if not values then return false end
    for i = 1, #values do
        local v, ok = values[i], true
        for j = 1, #tests do
            if not tests[j](v) then
                ok = false
                break
            end
        end
        if ok then return true end
    end
    return false
end

local function operators(node, opts)
    local tests, exists, negated = {}, nil, nil
    for _, name in ipairs(OPERATORS) do
        local operand = node[name]
        if name == "exists" then
            if operand ~= nil and type(operand) ~= "boolean" then return nil, "expected true or false", name end
            exists = operand
        elseif operand ~= nil then
            local made, message = (name == "not" and M.compile or POSITIVE[name])(operand, opts)
            if not made then return nil, message, name end
            if name == "not" then negated = made else tests[#tests + 1] = made end
        end
    end
    return function(values)
        if exists ~= nil and (values ~= nil) ~= exists then return false end
        if #tests > 0 and not holds(tests, values) then return false end
        return not (negated and negated.test(values))
    end
end

-- How a node reads in -explain.
function M.describe(node)
    if type(node) ~= "table" then return tostring(node) end
    local out = {}
    if is_list(node) then
        for i, v in ipairs(node) do out[i] = M.describe(v) end
        return "any of " .. table.concat(out, ", ")
    end
    for _, name in ipairs(OPERATORS) do
        if node[name] ~= nil then out[#out + 1] = name .. " " .. M.describe(node[name]) end
    end
    return table.concat(out, " and ")
end

-- opts: text (the source has no types), glob (a `*` in a string is a glob), fold (case does not matter).
-- Returns { test, rank = "exact" | "list" | "operator" | "glob", literal, words }, or nil, message, key in the node.
-- words: it asks for nothing but that one of these, in lower case, is in one of the texts (`contains`); else nil.
function M.compile(node, opts)
    opts = opts or {}
    if type(node) ~= "table" then
        local test, message = scalar(node, opts)
        if not test then return nil, message end
        local is_glob = opts.glob and type(node) == "string" and glob.is(node)
        local tests = { test }
        return {
            test = function(values) return holds(tests, values) end,
            rank = is_glob and "glob" or "exact",
            literal = is_glob and glob.literal(node) or 0,
        }
    end
    if is_list(node) then
        local test, message = any(node, scalar, opts)
        if not test then return nil, message end
        local tests = { test }
        return { test = function(values) return holds(tests, values) end, rank = "list", literal = 0 }
    end
    if next(node) == nil then return nil, "expected a value, a list or an operator map" end
    for key in pairs(node) do
        if not IS_OPERATOR[key] then
            return nil, ("unknown operator, one of: %s%s"):format(table.concat(OPERATORS, " "),
                suggest.hint(key, OPERATORS)), tostring(key)
        end
    end
    local test, message, key = operators(node, opts)
    if not test then return nil, message, key end
    local alone = node.contains ~= nil and next(node) == "contains" and next(node, "contains") == nil
    return { test = test, rank = "operator", literal = 0, words = alone and lowered(node.contains) or nil }
end

return M
