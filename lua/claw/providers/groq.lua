return require("claw.providers.compatible")({
    reasoning_field = "reasoning",
    protocols = {
        { "openai_chat", "/chat/completions" }, { "openai_responses", "/responses" },
        { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" },
    },
})
