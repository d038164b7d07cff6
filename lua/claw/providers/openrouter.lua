-- It hands fields of other dialects on to whom it asks: Anthropic's marks for the cache, top_k, signed reasoning.
return require("claw.providers.compatible")({
    cache_control = true, reasoning_field = "reasoning_details", top_k = true,
    protocols = {
        { "openai_chat", "/chat/completions" }, { "openai_responses", "/responses" },
        { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" },
    },
})
