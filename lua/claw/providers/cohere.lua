return {
    family = "cohere", version = "/v2", auth = { header = "authorization", prefix = "Bearer " },
    protocols = { { "cohere_chat", "/chat" }, { "cohere_embeddings", "/embed" } },
    forms = { { ends = "/compatibility/v1", family = "openai", stream_usage = true,
        protocols = { { "openai_chat", "/chat/completions" }, { "openai_embeddings", "/embeddings" } } } },
}
