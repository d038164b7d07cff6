-- openai_completions: OpenAI's /v1/completions, from before there were messages: a prompt is one turn of the user. Its
-- errors are those of openai_chat.
--
-- request, outgoing → answer → reader, writer.

local answer = require("claw.protocols.openai_completions.answer")
local errors = require("claw.protocols.openai_chat.error")
local outgoing = require("claw.protocols.openai_completions.outgoing")
local reader = require("claw.protocols.openai_completions.reader")
local request = require("claw.protocols.openai_completions.request")
local writer = require("claw.protocols.openai_completions.writer")

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
