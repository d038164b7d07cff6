-- Deployments stand in the path: a model's name (or what model_map makes of it) is its deployment's. Or base_url is the
-- newer …/openai/v1, which takes the deployment's name as the model.
local VERSION = "?api-version={api_version}"

local function deployments(prefix)
    return {
        { "openai_chat", prefix .. "/chat/completions" .. VERSION },
        { "openai_completions", prefix .. "/completions" .. VERSION },
        { "openai_embeddings", prefix .. "/embeddings" .. VERSION },
    }
end

return {
    family = "openai", version = "", auth = { header = "api-key", prefix = "" }, api_version = "2024-10-21",
    stream_usage = true, protocols = deployments("/openai/deployments/{model}"),
    responses_fields = { prompt_cache_key = true, prompt_cache_retention = true },
    forms = {
        { ends = "/v1", protocols = {
            { "openai_chat", "/chat/completions" }, { "openai_responses", "/responses" },
            { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" } } },
        { ends = "/openai", protocols = deployments("/deployments/{model}") },
        { ends = "/deployments/[^/]+", protocols = deployments("") },
    },
}
