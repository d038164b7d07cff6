-- The key is an OAuth access token; without one the proxy gets them for the upstream's `service_account`
-- (core/proxy/token.h) and sends them in the same field. base_url names the place, and follows from project and region
-- unless given: https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION
return {
    family = "gemini", version = "", auth = { header = "authorization", prefix = "Bearer " },
    call_ids = false, remote_files = true, -- it fetches what a URL names, and refuses a call's id
    protocols = {
        { "gemini_generate", "/publishers/google/models/{model}:generateContent",
            stream = "/publishers/google/models/{model}:streamGenerateContent?alt=sse" },
        { "gemini_count_tokens", "/publishers/google/models/{model}:countTokens" },
    },
    forms = { { ends = "/endpoints/openapi", family = "openai", stream_usage = true,
        protocols = { { "openai_chat", "/chat/completions" } } } },
}
