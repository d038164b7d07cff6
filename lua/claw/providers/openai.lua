return require("claw.providers.compatible")({
    responses_fields = { prompt_cache_key = true, prompt_cache_retention = true, moderation = true },
    protocols = {
        { "openai_chat", "/chat/completions" }, { "openai_responses", "/responses" },
        { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" },
    },
})
