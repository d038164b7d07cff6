-- Built in, answers offline as OpenAI does: no key leaves. Clients of the other dialects are translated for it.
return {
    family = "openai", version = "", auth = false, stream_usage = true,
    protocols = {
        { "openai_chat", "/v1/chat/completions" }, { "openai_completions", "/v1/completions" },
        { "openai_embeddings", "/v1/embeddings" },
    },
}
