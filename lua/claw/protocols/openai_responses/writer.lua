-- writer: events of the vocabulary as those of a Responses stream.
--
--   created in_progress
--     output_item.added   message:  content_part.added  output_text.delta… output_text.done  content_part.done …
--                         reasoning: reasoning_summary_part.added  …text.delta… …text.done  …part.done
--                         call:     function_call_arguments.delta… .done
--     output_item.done
--   completed | incomplete | failed
--
-- Texts and refusals that follow each other are contents of one message, as in a plain answer. A delta is its text
-- between two texts that are the same for its part, and its number.

local answer = require("claw.protocols.openai_responses.answer")
local errors = require("claw.protocols.openai_responses.error")
local fields = require("claw.protocols.fields")
local items = require("claw.protocols.openai_responses.items")
local json = require("claw.json")
local tools = require("claw.protocols.openai_responses.tools")

local M = {}

local quote, concat = json.quote, table.concat

local NOTHING = {}

function M.new(cx)
    local response           -- as it was announced
    local output = json.array() -- items by output_index + 1, as they are at their end
    local parts = {}         -- index -> part: { kind, item, out (output_index), at (content_index), said, head, … }
    local message            -- { item, out, open (contents that are), last }: the one that texts are added to
    local custom = tools.custom(cx.request)
    local usage, stop, over
    local sequence = 0

    local function add(out, kind, fields_of)
        fields_of.type, fields_of.sequence_number = kind, sequence
        sequence = sequence + 1
        out[#out + 1] = { type = kind, data = fields.encoded(fields_of) or "{}" }
    end

    local function new_item(out, item)
        output[#output + 1] = item
        add(out, "response.output_item.added", { output_index = #output - 1, item = item })
        return #output - 1
    end

    local function item_done(out, at, item)
        output[at + 1] = item
        add(out, "response.output_item.done", { output_index = at, item = item })
    end

    local function start(e)
        local out = {}
        response = answer.head(e, cx)
        usage = e.usage or usage
        add(out, "response.created", { response = response })
        add(out, "response.in_progress", { response = response })
        return out
    end

    -- ---- messages

    local function end_message(out)
        if not message then return end
        local ended = message
        if ended.open > 0 then -- its last content ends it
            ended.over = true
        else
            ended.item.status = "completed"
            item_done(out, ended.out, ended.item)
        end
        message = nil
    end

    local KIND = { text = "output_text", refusal = "refusal" }

    local function begin_content(part, out)
        if not message then
            local item = items.message(cx.id("msg_"), "in_progress")
            message = { item = item, out = new_item(out, item), open = 0, last = -1 }
        end
        message.open, message.last = message.open + 1, message.last + 1
        part.message, part.item, part.out, part.at = message, message.item, message.out, message.last
        local name = KIND[part.kind]
        part.head = ('{"type":"response.%s.delta","item_id":"%s","output_index":%d,"content_index":%d,"delta":'):format(
            name, part.item.id, part.out, part.at)
        part.delta = "response." .. name .. ".delta"
        part.tail = part.kind == "text" and ',"logprobs":[],"sequence_number":' or ',"sequence_number":'
        part.item.content[part.at + 1] = part.kind == "text" and items.text("") or items.refusal("")
        add(out, "response.content_part.added", { item_id = part.item.id, output_index = part.out,
            content_index = part.at, part = part.item.content[part.at + 1] })
    end

    local function end_content(part, out)
        local text, of = concat(part.said), part.message
        local made = part.kind == "refusal" and items.refusal(text)
            or items.text(text, items.annotations(part.cited, text, cx), part.logprobs)
        of.item.content[part.at + 1] = made
        local place = { item_id = of.item.id, output_index = of.out, content_index = part.at }
        local function at(more)
            for key, v in pairs(place) do more[key] = v end
            return more
        end
        if part.kind == "text" then
            for i, annotation in ipairs(made.annotations) do
                add(out, "response.output_text.annotation.added",
                    at({ annotation = annotation, annotation_index = i - 1 }))
            end
            add(out, "response.output_text.done", at({ text = text, logprobs = made.logprobs }))
        else
            add(out, "response.refusal.done", at({ refusal = text }))
        end
        add(out, "response.content_part.done", at({ part = made }))
        of.open = of.open - 1
        if of.over and of.open == 0 then
            of.item.status = "completed"
            item_done(out, of.out, of.item)
        end
    end

    -- ---- reasoning

    local function begin_reasoning(part, given, out)
        part.id = items.id_for(given, "rs_", cx)
        part.out = new_item(out, items.reasoning(part.id, ""))
        part.delta = "response.reasoning_summary_text.delta"
        part.tail = ',"sequence_number":'
    end

    -- The summary begins with its first text: there may be none.
    local function begin_summary(part, out)
        part.head = ('{"type":"%s","item_id":"%s","output_index":%d,"summary_index":0,"delta":'):format(part.delta,
            part.id, part.out)
        add(out, "response.reasoning_summary_part.added", { item_id = part.id, output_index = part.out,
            summary_index = 0, part = { type = "summary_text", text = "" } })
    end

    local function end_reasoning(part, out)
        local text = concat(part.said)
        if part.head then
            local place = { item_id = part.id, output_index = part.out, summary_index = 0, text = text }
            add(out, "response.reasoning_summary_text.done", place)
            add(out, "response.reasoning_summary_part.done", { item_id = part.id, output_index = part.out,
                summary_index = 0, part = { type = "summary_text", text = text } })
        end
        item_done(out, part.out, items.reasoning(part.id, text, part.signature, part.origin, part.redacted))
    end

    -- ---- calls

    local function begin_call(part, given, out)
        part.custom = custom[given.name]
        part.id, part.call = cx.id(part.custom and "ctc_" or "fc_"), { id = given.id, name = given.name }
        if given.signature then
            local id = cx.id("rs_")
            local sealed = items.reasoning(id, "", given.signature, given.origin)
            item_done(out, new_item(out, items.reasoning(id, "")), sealed)
        end
        part.out = new_item(out, items.call(part.id, part.call, "", "in_progress", part.custom, cx))
        part.delta = "response.function_call_arguments.delta"
        part.tail = ',"sequence_number":'
        part.head = ('{"type":"%s","item_id":"%s","output_index":%d,"delta":'):format(part.delta, part.id, part.out)
    end

    local function end_call(part, out)
        local text = concat(part.said)
        if text == "" then text = "{}" end
        local item = items.call(part.id, part.call, text, "completed", part.custom, cx)
        local place = { item_id = part.id, output_index = part.out }
        if part.custom then
            add(out, "response.custom_tool_call_input.delta", { item_id = part.id, output_index = part.out,
                delta = item.input })
            place.input = item.input
            add(out, "response.custom_tool_call_input.done", place)
        else
            place.arguments, place.name = text, part.call.name
            add(out, "response.function_call_arguments.done", place)
        end
        item_done(out, part.out, item)
    end

    -- ---- events

    local on = {}

    local function more(part, text, out)
        part.said[#part.said + 1] = text
        out[#out + 1] = { type = part.delta, data = part.head .. quote(text) .. part.tail .. sequence .. "}" }
        sequence = sequence + 1
        return out
    end

    function on.part(e)
        local given, out = e.part, {}
        local part = { kind = given.kind, said = {}, signature = given.signature, origin = given.origin,
            cited = given.citations }
        parts[e.index] = part
        if KIND[part.kind] then
            begin_content(part, out)
        else
            end_message(out)
            if part.kind == "call" then
                begin_call(part, given, out)
            elseif part.kind == "thinking" then
                begin_reasoning(part, given, out)
            elseif part.kind == "redacted" then
                part.signature, part.redacted = given.data, true
                begin_reasoning(part, given, out)
            else
                part.item = items.other(given, cx)
                part.out = part.item and new_item(out, part.item)
            end
        end
        if given.text and given.text ~= "" and part.delta then
            if part.kind == "thinking" then begin_summary(part, out) end
            more(part, given.text, out)
        end
        return out
    end

    function on.text(e)
        local part = parts[e.index]
        if not part or not part.delta or e.text == "" then return NOTHING end
        local out = {}
        if not part.head then begin_summary(part, out) end
        return more(part, e.text, out)
    end

    function on.input(e)
        local part = parts[e.index]
        if not part or not part.call then return NOTHING end
        if not part.custom then return more(part, e.text, {}) end
        part.said[#part.said + 1] = e.text
        return NOTHING
    end

    function on.signature(e)
        local part = parts[e.index]
        if part and part.kind == "thinking" then
            part.signature, part.origin = (part.signature or "") .. e.signature, e.origin
        end
        return NOTHING
    end

    function on.citation(e)
        local part = parts[e.index]
        if part and part.kind == "text" then
            part.cited = part.cited or {}
            table.insert(part.cited, e.citation)
        end
        return NOTHING
    end

    function on.logprobs(e)
        local part, all = parts[e.index], items.logprobs(e.logprobs)
        if not part or part.kind ~= "text" or not all then return NOTHING end
        part.logprobs = part.logprobs or json.array()
        for _, one in ipairs(all) do table.insert(part.logprobs, one) end
        return NOTHING
    end

    function on.part_end(e)
        local part, out = parts[e.index], {}
        if not part then return NOTHING end
        if part.message then
            end_content(part, out)
        elseif part.call then
            end_call(part, out)
        elseif part.id then
            end_reasoning(part, out)
        elseif part.item then
            item_done(out, part.out, part.item)
        end
        part.said = NOTHING
        return out
    end

    on["stop"] = function(e)
        stop = e.stop
        local out = {}
        if message and (stop == "length" or stop == "context" or stop == "filter") then
            message.item.status = "incomplete"
            item_done(out, message.out, message.item)
            message = nil
        end
        end_message(out)
        return out
    end

    local function finish(out, err)
        response.output = output
        local status = answer.finish(response, stop, usage, err)
        add(out, "response." .. status, { response = response })
        over = true
        return out
    end

    local function failed(err)
        cx.sequence = sequence
        local out = { errors.write_event(err, cx) }
        sequence = sequence + 1
        if response then finish(out, err) end
        over = true
        return out
    end

    local function write(e)
        if e.on == "start" then return response and NOTHING or start(e) end
        if e.on == "error" then return failed(e.err) end
        if e.on == "usage" then
            usage = e.usage
            return NOTHING
        end
        if (e.choice or 0) ~= 0 then return NOTHING end -- there is one answer here
        local out = not response and start({}) or NOTHING
        if e.on == "end" then return finish(out == NOTHING and {} or out) end
        local fn = on[e.on]
        local made = fn and fn(e) or NOTHING
        if out == NOTHING then return made end
        for _, one in ipairs(made) do out[#out + 1] = one end
        return out
    end

    return function(e)
        if over then return NOTHING end
        local out = write(e)
        cx.sequence = sequence
        return out
    end
end

return M
