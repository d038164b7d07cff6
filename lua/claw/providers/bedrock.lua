-- The key is a Bedrock API key; without one requests are signed with the upstream's `aws` (core/proxy/sigv4.h), in the
-- same field. base_url is https://bedrock-runtime.REGION.amazonaws.com, or that and /openai/v1 for the models that
-- speak as OpenAI's do.
return {
    family = "bedrock", version = "", auth = { header = "authorization", prefix = "Bearer " },
    protocols = { { "bedrock_converse", "/model/{model}/converse", stream = "/model/{model}/converse-stream" },
        { "bedrock_embeddings", "/model/{model}/invoke" } },
    forms = { { ends = "/openai/v1", family = "openai", protocols = { { "openai_chat", "/chat/completions" } } } },
}
