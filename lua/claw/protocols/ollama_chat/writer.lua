-- writer: events of the vocabulary as the lines of an Ollama chat stream. Calls go whole, when all of their arguments
-- are
-- there: that is how the protocol has them. The last line has the counts.

local answer = require("claw.protocols.ollama_chat.answer")
local json = require("claw.json")

local M = {}

local quote = json.quote

local NOTHING = {}

function M.new(cx)
    local head, usage, stop, refused
    local over, calls, parts = false, 0, {}

    local function begin(e)
        head = ('{"model":%s,"created_at":%s,"message":{"role":"assistant","content":'):format(
            quote(e.model or cx.model or ""), quote(answer.time(e.created or cx.now)))
        usage = e.usage or usage
        return NOTHING
    end

    -- A line with text, and what else its message has (JSON: ',"name":…').
    local function line(text, more)
        return { { data = head .. quote(text) .. (more or "") .. '},"done":false}' } }
    end

    local on = { start = begin }

    function on.part(e)
        local given = e.part
        if given.kind == "call" then
            parts[e.index] = { call = { id = given.id, name = given.name }, text = {} }
            return NOTHING
        end
        parts[e.index] = { kind = given.kind, text = {} }
        if given.kind == "image" and given.data then return line("", ',"images":[' .. quote(given.data) .. "]") end
        if answer.has_form(given) then
            return given.text and given.text ~= "" and on.text({ index = e.index, text = given.text }) or NOTHING
        end
        cx.drop("content." .. tostring(given.what or given.kind), "hint", "the client's protocol has no such part")
        return NOTHING
    end

    function on.text(e)
        local part = parts[e.index]
        if part and part.kind == "thinking" then return line("", ',"thinking":' .. quote(e.text)) end
        refused = refused or part and part.kind == "refusal"
        return line(e.text)
    end

    function on.input(e)
        local part = parts[e.index]
        if part and part.call then part.text[#part.text + 1] = e.text end
        return NOTHING
    end

    function on.part_end(e)
        local part = parts[e.index]
        parts[e.index] = nil
        if not part or not part.call then return NOTHING end
        calls = calls + 1
        return line("", ',"tool_calls":[' .. answer.call_text(part.call, table.concat(part.text), calls - 1, cx) .. "]")
    end

    function on.citation()
        cx.drop("citations", "hint", "the client's protocol has none")
        return NOTHING
    end

    function on.logprobs(e)
        local all = answer.logprobs_text(e.logprobs)
        return all and { { data = head .. '""},"done":false,"logprobs":' .. all .. "}" } } or NOTHING
    end

    function on.usage(e)
        usage = e.usage
        return NOTHING
    end

    function on.stop(e)
        stop = answer.reason(e.stop, refused)
        return NOTHING
    end

    on["end"] = function()
        over = true
        local counts = usage and (',"prompt_eval_count":%d,"eval_count":%d'):format(usage.input or 0, usage.output
            or 0) or ""
        return { { data = head .. '""},"done":true,"done_reason":' .. quote(stop or "stop") .. counts .. "}" } }
    end

    function on.error(e)
        over = true
        return { answer.write_error_event(e.err) }
    end

    return function(e)
        local write = on[e.on]
        if not write or over or (e.choice or 0) ~= 0 then return NOTHING end -- there is one answer here
        if not head and e.on ~= "start" and e.on ~= "error" then begin({}) end
        return write(e)
    end
end

return M
