-- The key is an OAuth access token; without one the proxy gets them for the upstream's `service_account`
-- (core/proxy/token.h) and sends them in the same field. base_url names the place, and follows from project and region
-- unless given: https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION
-- Claude is asked below …/publishers/anthropic: an upstream of its own, whose base_url says so. It takes Anthropic's
-- bodies without the model, and with the version that elsewhere is a header (Anthropic: Claude on Vertex AI).
return {
    family = "gemini", version = "", auth = { header = "authorization", prefix = "Bearer " },
    call_ids = false, remote_files = true, -- it fetches what a URL names, and refuses a call's id
    protocols = {
        { "gemini_generate", "/publishers/google/models/{model}:generateContent",
            stream = "/publishers/google/models/{model}:streamGenerateContent?alt=sse" },
        { "gemini_count_tokens", "/publishers/google/models/{model}:countTokens" },
    },
    forms = { { ends = "/publishers/anthropic", family = "anthropic",
        fields = { model = false, anthropic_version = "vertex-2023-10-16" },
        protocols = {
            { "anthropic_messages", "/models/{model}:rawPredict", stream = "/models/{model}:streamRawPredict" },
            { "anthropic_count_tokens", "/models/count-tokens:rawPredict", -- its body names the model
                fields = { anthropic_version = "vertex-2023-10-16" } },
        } },
    { ends = "/endpoints/openapi", family = "openai", stream_usage = true,
        protocols = { { "openai_chat", "/chat/completions" } } } },
}
