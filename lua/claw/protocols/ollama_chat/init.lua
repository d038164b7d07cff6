-- ollama_chat: Ollama's /api/chat. Its errors are a word or, of upstreams, OpenAI's: { error: "…" | { message } }.
--
-- models, messages (turns, written) → request, outgoing → answer → reader, writer.

local answer = require("claw.protocols.ollama_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local outgoing = require("claw.protocols.ollama_chat.outgoing")
local reader = require("claw.protocols.ollama_chat.reader")
local request = require("claw.protocols.ollama_chat.request")
local writer = require("claw.protocols.ollama_chat.writer")

return {
    read_request = request.read,
    wording = request.wording,
    write_request = outgoing.write,
    read_answer = answer.read,
    write_answer = answer.write,
    reader = reader.new,
    writer = writer.new,
    read_error = errors.read,
    write_error = answer.write_error,
    write_error_event = answer.write_error_event,
}
