return {
    family = "anthropic", version = "/v1",
    auth = { header = "x-api-key", prefix = "" }, headers = { { "anthropic-version", "2023-06-01" } },
    protocols = {
        { "anthropic_messages", "/messages" }, { "anthropic_count_tokens", "/messages/count_tokens" },
    },
}
