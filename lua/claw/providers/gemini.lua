return {
    family = "gemini", version = "/v1beta", auth = { header = "x-goog-api-key", prefix = "" },
    call_ids = true, remote_files = true,
    protocols = {
        { "gemini_generate", "/models/{model}:generateContent",
            stream = "/models/{model}:streamGenerateContent?alt=sse" },
        { "gemini_embed", "/models/{model}:embedContent" },
        { "gemini_embed_batch", "/models/{model}:batchEmbedContents" },
        { "gemini_count_tokens", "/models/{model}:countTokens" },
        { "openai_embeddings", "/openai/embeddings" },
    },
    -- Google's OpenAI-compatible endpoint.
    forms = { { ends = "/openai", family = "openai", auth = { header = "authorization", prefix = "Bearer " },
        protocols = { { "openai_chat", "/chat/completions" }, { "openai_embeddings", "/embeddings" } } } },
}
