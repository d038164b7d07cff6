-- It speaks its own protocol and OpenAI's; below a base_url that ends in /v1 only the latter.
return {
    family = "ollama", version = "", auth = { header = "authorization", prefix = "Bearer " }, stream_usage = true,
    protocols = {
        { "ollama_chat", "/api/chat" }, { "openai_chat", "/v1/chat/completions" },
        { "openai_completions", "/v1/completions" }, { "openai_embeddings", "/v1/embeddings" },
        { "ollama_embeddings", "/api/embed" },
    },
    forms = { { ends = "/v1", family = "openai", protocols = {
        { "openai_chat", "/chat/completions" }, { "openai_completions", "/completions" },
        { "openai_embeddings", "/embeddings" } } } },
}
