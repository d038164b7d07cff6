return require("claw.providers.compatible")({
    protocols = {
        { "openai_chat", "/chat/completions" }, { "openai_responses", "/responses" },
        { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" },
    },
})
