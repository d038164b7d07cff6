-- ollama_chat: Ollama's /api/chat. Upstreams only. Its errors are a word or OpenAI's: { error: "…" | { message } }.
--
-- messages (turns, written) → outgoing → answer → reader.

local answer = require("claw.protocols.ollama_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local outgoing = require("claw.protocols.ollama_chat.outgoing")
local reader = require("claw.protocols.ollama_chat.reader")

return {
    write_request = outgoing.write,
    read_answer = answer.read,
    reader = reader.new,
    read_error = errors.read,
}
