-- openai_responses: OpenAI's Responses. See README.md in the folder above.
--
-- What it keeps at OpenAI (previous_response_id, conversation, prompt) no other upstream knows: such a field stands
-- among the parts as `other`, and is refused or listed by who cannot say it.
-- A custom tool takes a text where functions take an object: it is read as a function { input = text } with `custom`
-- set, and calls of it are custom calls again on the way back.

local answer = require("claw.protocols.openai_responses.answer")
local errors = require("claw.protocols.openai_responses.error")
local outgoing = require("claw.protocols.openai_responses.outgoing")
local reader = require("claw.protocols.openai_responses.reader")
local request = require("claw.protocols.openai_responses.request")
local writer = require("claw.protocols.openai_responses.writer")

return {
    read_request = request.read,
    wording = request.wording,
    write_request = outgoing.write,
    read_answer = answer.read,
    write_answer = answer.write,
    reader = reader.new,
    writer = writer.new,
    read_error = errors.read,
    write_error = errors.write,
    write_error_event = errors.write_event,
}
