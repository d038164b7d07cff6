-- catalog: what is known of the providers' models: prices, context window, longest answer, capabilities. Data, and one
-- reader. What `prices`, an upstream or its `models` say in openclaw.yaml wins over every figure here.
--
-- Prices are USD a million tokens. Each row: name, { input, output, cached, cache_write }, context window, longest
-- answer, capabilities; then what differs past a length of the prompt: long = { above, input, output, cached }.
-- Capabilities: t tools, v vision, s json_schema, r reasoning, a audio, d documents. Figures are the providers' list
-- prices on the day of AS_OF; a date or "-latest" behind a name need not be written.

local M = {}

M.AS_OF = "2026-06-28"
M.SOURCES = {
    openai = "https://platform.openai.com/docs/pricing",
    anthropic = "https://docs.anthropic.com/en/docs/about-claude/pricing",
    gemini = "https://ai.google.dev/gemini-api/docs/pricing",
    mistral = "https://mistral.ai/pricing",
    cohere = "https://cohere.com/pricing",
    deepseek = "https://api-docs.deepseek.com/quick_start/pricing",
    xai = "https://docs.x.ai/docs/models",
    groq = "https://groq.com/pricing",
    together = "https://www.together.ai/pricing",
    perplexity = "https://docs.perplexity.ai/getting-started/pricing",
    bedrock = "https://aws.amazon.com/bedrock/pricing",
}

local openai = {
    { "gpt-5.5", { 5, 30, 0.5 }, 1050000, 128000, "tvsrd", long = { 272000, 10, 45, 1 } },
    { "gpt-5.5-pro", { 30, 180 }, 1050000, 128000, "tvsrd" },
    { "gpt-5.4", { 2.5, 15, 0.25 }, 1050000, 128000, "tvsrd", long = { 272000, 5, 22.5, 0.5 } },
    { "gpt-5.4-mini", { 0.75, 4.5, 0.075 }, 400000, 128000, "tvsrd" },
    { "gpt-5.4-nano", { 0.2, 1.25, 0.02 }, 400000, 128000, "tvsrd" },
    { "gpt-5.2", { 1.75, 14, 0.175 }, 400000, 128000, "tvsrd" },
    { "gpt-5.2-pro", { 21, 168 }, 400000, 128000, "tvsrd" },
    { "gpt-5.1", { 1.25, 10, 0.125 }, 400000, 128000, "tvsrd" },
    { "gpt-5.1-codex", { 1.25, 10, 0.125 }, 400000, 128000, "tvsr" },
    { "gpt-5.1-codex-mini", { 0.25, 2, 0.025 }, 400000, 128000, "tvsr" },
    { "gpt-5", { 1.25, 10, 0.125 }, 400000, 128000, "tvsrd" },
    { "gpt-5-codex", { 1.25, 10, 0.125 }, 400000, 128000, "tvsr" },
    { "gpt-5-mini", { 0.25, 2, 0.025 }, 400000, 128000, "tvsrd" },
    { "gpt-5-nano", { 0.05, 0.4, 0.005 }, 400000, 128000, "tvsrd" },
    { "gpt-5-pro", { 15, 120 }, 400000, 272000, "tvsrd" },
    { "gpt-4.1", { 2, 8, 0.5 }, 1047576, 32768, "tvsd" },
    { "gpt-4.1-mini", { 0.4, 1.6, 0.1 }, 1047576, 32768, "tvsd" },
    { "gpt-4.1-nano", { 0.1, 0.4, 0.025 }, 1047576, 32768, "tvsd" },
    { "gpt-4o", { 2.5, 10, 1.25 }, 128000, 16384, "tvsd" },
    { "gpt-4o-2024-05-13", { 5, 15 }, 128000, 4096, "tv" },
    { "gpt-4o-mini", { 0.15, 0.6, 0.075 }, 128000, 16384, "tvsd" },
    { "gpt-4o-search-preview", { 2.5, 10 }, 128000, 16384, "s" },
    { "gpt-4o-mini-search-preview", { 0.15, 0.6 }, 128000, 16384, "s" },
    { "chatgpt-4o", { 5, 15 }, 128000, 16384, "v" },
    { "gpt-audio", { 2.5, 10 }, 128000, 16384, "ta" },
    { "gpt-4-turbo", { 10, 30 }, 128000, 4096, "tv" },
    { "gpt-4-vision-preview", { 10, 30 }, 128000, 4096, "v" },
    { "gpt-4", { 30, 60 }, 8192, 8192, "t" },
    { "gpt-4-32k", { 60, 120 }, 32768, 32768, "t" },
    { "gpt-3.5-turbo", { 0.5, 1.5 }, 16385, 4096, "t" },
    { "gpt-3.5-turbo-16k", { 3, 4 }, 16385, 4096, "t" },
    { "gpt-3.5-turbo-instruct", { 1.5, 2 }, 4096, 4096, "" },
    { "o4-mini", { 1.1, 4.4, 0.275 }, 200000, 100000, "tvsr" },
    { "o3", { 2, 8, 0.5 }, 200000, 100000, "tvsr" },
    { "o3-pro", { 20, 80 }, 200000, 100000, "tvsr" },
    { "o3-mini", { 1.1, 4.4, 0.55 }, 200000, 100000, "tsr" },
    { "o1", { 15, 60, 7.5 }, 200000, 100000, "tvsr" },
    { "o1-pro", { 150, 600 }, 200000, 100000, "tvsr" },
    { "o1-mini", { 1.1, 4.4, 0.55 }, 128000, 65536, "r" },
    { "text-embedding-3-small", { 0.02 }, 8191 },
    { "text-embedding-3-large", { 0.13 }, 8191 },
    { "text-embedding-ada-002", { 0.1 }, 8191 },
}

-- A cache write is 1.25 times, a read a tenth of the input's price.
local anthropic = {
    { "claude-opus-4-8", { 5, 25, 0.5, 6.25 }, 1000000, 128000, "tvsrd" },
    { "claude-opus-4-7", { 5, 25, 0.5, 6.25 }, 1000000, 128000, "tvsrd" },
    { "claude-opus-4-6", { 5, 25, 0.5, 6.25 }, 1000000, 128000, "tvsrd" },
    { "claude-opus-4-5", { 5, 25, 0.5, 6.25 }, 200000, 64000, "tvsrd" },
    { "claude-opus-4-1", { 15, 75, 1.5, 18.75 }, 200000, 32000, "tvsrd" },
    { "claude-opus-4", { 15, 75, 1.5, 18.75 }, 200000, 32000, "tvrd" },
    { "claude-sonnet-4-6", { 3, 15, 0.3, 3.75 }, 1000000, 64000, "tvsrd" },
    { "claude-sonnet-4-5", { 3, 15, 0.3, 3.75 }, 200000, 64000, "tvsrd", long = { 200000, 6, 22.5, 0.6 } },
    { "claude-sonnet-4", { 3, 15, 0.3, 3.75 }, 200000, 64000, "tvrd", long = { 200000, 6, 22.5, 0.6 } },
    { "claude-haiku-4-5", { 1, 5, 0.1, 1.25 }, 200000, 64000, "tvsrd" },
    { "claude-3-7-sonnet", { 3, 15, 0.3, 3.75 }, 200000, 64000, "tvrd" },
    { "claude-3-5-sonnet", { 3, 15, 0.3, 3.75 }, 200000, 8192, "tvd" },
    { "claude-3-5-haiku", { 0.8, 4, 0.08, 1 }, 200000, 8192, "tvd" },
    { "claude-3-opus", { 15, 75, 1.5, 18.75 }, 200000, 4096, "tv" },
    { "claude-3-sonnet", { 3, 15 }, 200000, 4096, "tv" },
    { "claude-3-haiku", { 0.25, 1.25, 0.03, 0.3 }, 200000, 4096, "tv" },
}

local gemini = {
    { "gemini-3.1-pro-preview", { 2, 12, 0.2 }, 1048576, 65536, "tvsrad", long = { 200000, 4, 18, 0.4 } },
    { "gemini-3-pro-preview", { 2, 12, 0.2 }, 1048576, 65536, "tvsrad", long = { 200000, 4, 18, 0.4 } },
    { "gemini-3-flash-preview", { 0.5, 3, 0.05 }, 1048576, 65536, "tvsrad" },
    { "gemini-3.1-flash-lite-preview", { 0.25, 1.5, 0.025 }, 1048576, 65536, "tvsrad" },
    { "gemini-2.5-pro", { 1.25, 10, 0.125 }, 1048576, 65536, "tvsrad", long = { 200000, 2.5, 15, 0.25 } },
    { "gemini-2.5-flash", { 0.3, 2.5, 0.03 }, 1048576, 65536, "tvsrad" },
    { "gemini-2.5-flash-lite", { 0.1, 0.4, 0.01 }, 1048576, 65536, "tvsrad" },
    { "gemini-2.0-flash", { 0.1, 0.4, 0.025 }, 1048576, 8192, "tvsad" },
    { "gemini-2.0-flash-lite", { 0.075, 0.3 }, 1048576, 8192, "tvsad" },
    { "gemini-1.5-pro", { 1.25, 5, 0.3125 }, 2097152, 8192, "tvsad", long = { 128000, 2.5, 10, 0.625 } },
    { "gemini-1.5-flash", { 0.075, 0.3, 0.01875 }, 1048576, 8192, "tvsad", long = { 128000, 0.15, 0.6, 0.0375 } },
    { "gemini-embedding-001", { 0.15 }, 2048 },
}

local mistral = {
    { "mistral-large", { 0.5, 1.5 }, 262144, nil, "tvs" },
    { "mistral-large-2512", { 0.5, 1.5 }, 262144, nil, "tvs" },
    { "mistral-medium", { 0.4, 2 }, 131072, nil, "tvs" },
    { "mistral-small", { 0.1, 0.3 }, 131072, nil, "tvs" },
    { "ministral-3b", { 0.1, 0.1 }, 262144, nil, "tvs" },
    { "ministral-8b", { 0.15, 0.15 }, 262144, nil, "tvs" },
    { "ministral-14b", { 0.2, 0.2 }, 262144, nil, "tvs" },
    { "magistral-medium", { 2, 5 }, 131072, nil, "tvsr" },
    { "magistral-small", { 0.5, 1.5 }, 131072, nil, "tvsr" },
    { "codestral", { 0.3, 0.9 }, 256000, nil, "ts" },
    { "devstral-medium", { 0.4, 2 }, 131072, nil, "ts" },
    { "devstral-small", { 0.1, 0.3 }, 131072, nil, "ts" },
    { "pixtral-large", { 2, 6 }, 131072, nil, "tvs" },
    { "open-mistral-nemo", { 0.15, 0.15 }, 131072, nil, "ts" },
    { "voxtral-small", { 0.1, 0.3 }, 32768, nil, "ta" },
    { "mistral-tiny", { 0.25, 0.25 }, 32768, nil, "" },
    { "mistral-embed", { 0.1 }, 8192 },
}

local cohere = {
    { "command-a-03-2025", { 2.5, 10 }, 256000, 8192, "ts" },
    { "command-a-reasoning-08-2025", { 2.5, 10 }, 256000, 32768, "tsr" },
    { "command-a-vision-07-2025", { 2.5, 10 }, 128000, 8192, "vs" },
    { "command-r-plus-08-2024", { 2.5, 10 }, 128000, 4096, "ts" },
    { "command-r-plus", { 3, 15 }, 128000, 4096, "ts" },
    { "command-r-08-2024", { 0.15, 0.6 }, 128000, 4096, "ts" },
    { "command-r", { 0.5, 1.5 }, 128000, 4096, "ts" },
    { "command-r7b-12-2024", { 0.0375, 0.15 }, 128000, 4096, "ts" },
    { "embed-v4.0", { 0.12 }, 128000 },
    { "embed-english-v3.0", { 0.1 }, 512 },
    { "embed-multilingual-v3.0", { 0.1 }, 512 },
}

local deepseek = {
    { "deepseek-v4-flash", { 0.14, 0.28, 0.0028 }, 1000000, 384000, "tr" },
    { "deepseek-v4-pro", { 0.435, 0.87, 0.003625 }, 1000000, 384000, "tr" },
    { "deepseek-chat", { 0.14, 0.28, 0.0028 }, 1000000, 384000, "t" },
    { "deepseek-reasoner", { 0.14, 0.28, 0.0028 }, 1000000, 384000, "tr" },
}

local xai = {
    { "grok-4.3", { 1.25, 2.5, 0.2 }, 1000000, nil, "tvsr" },
    { "grok-4-1-fast", { 0.2, 0.5, 0.05 }, 2000000, nil, "tvsr" },
    { "grok-4-1-fast-reasoning", { 0.2, 0.5, 0.05 }, 2000000, nil, "tvsr" },
    { "grok-4-1-fast-non-reasoning", { 0.2, 0.5, 0.05 }, 2000000, nil, "tvs" },
    { "grok-4-fast", { 0.2, 0.5, 0.05 }, 2000000, nil, "tvsr" },
    { "grok-4", { 3, 15, 0.75 }, 256000, nil, "tvsr" },
    { "grok-4-0709", { 3, 15, 0.75 }, 256000, nil, "tvsr" },
    { "grok-code-fast-1", { 0.2, 1.5, 0.02 }, 256000, nil, "tsr" },
    { "grok-3", { 3, 15, 0.75 }, 131072, nil, "ts" },
    { "grok-3-mini", { 0.3, 0.5, 0.075 }, 131072, nil, "tsr" },
}

local groq = {
    { "openai/gpt-oss-120b", { 0.15, 0.6, 0.075 }, 131072, 65536, "tsr" },
    { "openai/gpt-oss-20b", { 0.075, 0.3, 0.0375 }, 131072, 65536, "tsr" },
    { "llama-3.3-70b-versatile", { 0.59, 0.79 }, 131072, 32768, "t" },
    { "llama-3.1-8b-instant", { 0.05, 0.08 }, 131072, 131072, "t" },
    { "meta-llama/llama-4-maverick-17b-128e-instruct", { 0.2, 0.6 }, 131072, 8192, "tvs" },
    { "meta-llama/llama-4-scout-17b-16e-instruct", { 0.11, 0.34 }, 131072, 8192, "tvs" },
    { "moonshotai/kimi-k2-instruct-0905", { 1, 3, 0.5 }, 262144, 16384, "ts" },
    { "qwen/qwen3-32b", { 0.29, 0.59 }, 131072, 40960, "tr" },
}

local together = {
    { "meta-llama/Llama-3.3-70B-Instruct-Turbo", { 0.88, 0.88 }, 131072, nil, "t" },
    { "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", { 0.27, 0.85 }, 1048576, nil, "tv" },
}

-- What a search costs on top is not counted: `cost_per_request` says it.
local perplexity = {
    { "sonar", { 1, 1 }, 128000, nil, "s" },
    { "sonar-pro", { 3, 15 }, 200000, 8000, "s" },
    { "sonar-reasoning-pro", { 2, 8 }, 128000, nil, "sr" },
    { "sonar-deep-research", { 2, 8 }, 128000, nil, "sr" },
}

local bedrock = {
    { "amazon.nova-micro-v1:0", { 0.035, 0.14, 0.00875 }, 128000, 10000, "t" },
    { "amazon.nova-lite-v1:0", { 0.06, 0.24, 0.015 }, 300000, 10000, "tvd" },
    { "amazon.nova-pro-v1:0", { 0.8, 3.2, 0.2 }, 300000, 10000, "tvd" },
    { "amazon.nova-premier-v1:0", { 2.5, 12.5, 0.625 }, 1000000, 32000, "tvd" },
    { "amazon.titan-text-express-v1", { 0.2, 0.6 }, 8192, 8192, "" },
    { "amazon.titan-embed-text-v2:0", { 0.02 }, 8192 },
    { "meta.llama3-1-8b-instruct-v1:0", { 0.22, 0.22 }, 128000, 2048, "t" },
    { "meta.llama3-1-70b-instruct-v1:0", { 0.72, 0.72 }, 128000, 2048, "t" },
    { "meta.llama3-2-1b-instruct-v1:0", { 0.1, 0.1 }, 131072, nil, "" },
    { "meta.llama3-2-3b-instruct-v1:0", { 0.15, 0.15 }, 131072, nil, "" },
}

local WORDS = { t = "tools", v = "vision", s = "json_schema", r = "reasoning", a = "audio", d = "documents" }

local function facts_of(row)
    local price = row[2]
    local facts = {
        cost_per_million_input_tokens = price[1], cost_per_million_output_tokens = price[2] or 0,
        cost_per_million_cached_input_tokens = price[3], cost_per_million_cache_write_tokens = price[4],
        context_window = row[3], max_output_tokens = row[4],
    }
    if row[5] then
        facts.capabilities = { "streaming" }
        for letter in row[5]:gmatch(".") do facts.capabilities[#facts.capabilities + 1] = WORDS[letter] end
    end
    if row.long then
        facts.long = { above = row.long[1], cost_per_million_input_tokens = row.long[2],
            cost_per_million_output_tokens = row.long[3], cost_per_million_cached_input_tokens = row.long[4] }
    end
    return facts
end

local function index(rows)
    local out = {}
    for _, row in ipairs(rows) do out[row[1]:lower()] = facts_of(row) end
    return out
end

local MAKERS = {}
for i, rows in ipairs({ openai, anthropic, gemini, mistral, cohere, deepseek, xai }) do MAKERS[i] = index(rows) end

-- Where a type's prices are its own; others (azure, vertex, openrouter …) charge what the model's maker does.
local OWN = { groq = index(groq), together = index(together), perplexity = index(perplexity), bedrock = index(bedrock) }

-- Types that run models on machines of one's own, or whose prices are not a list.
local SILENT = { generic = true, ollama = true, vllm = true, mock = true, huggingface = true, nvidia = true,
    fireworks = true }

-- Endings that name a release of the same model.
local ENDINGS = { "%-%d%d%d%d%-%d%d%-%d%d$", "[-@]%d%d%d%d%d%d%d%d$", "%-latest$", "%-0$", "%-%d%d%d%d$" }

local function shortened(name)
    for _, ending in ipairs(ENDINGS) do
        local short = name:gsub(ending, "")
        if short ~= name then return short end
    end
    return nil
end

local function find(name)
    for _, rows in ipairs(MAKERS) do
        if rows[name] then return rows[name] end
    end
    return nil
end

-- The facts of a model at a type of upstream, as an entry of `models` in openclaw.yaml would say them:
-- { cost_per_million_…_tokens, context_window, max_output_tokens, capabilities, long }. nil: nothing is known.
-- kind: the upstream's type; name: the model's.
function M.find(kind, name)
    if SILENT[kind] or type(name) ~= "string" then return nil end
    name = name:lower()
    local own = OWN[kind] and OWN[kind][name]
    if own then return own end
    if OWN[kind] and kind ~= "bedrock" then return nil end
    -- "us.anthropic.claude-sonnet-4-6-20251001-v1:0", "openai/gpt-4.1", "models/gemini-2.5-pro"
    if kind == "bedrock" then
        name = name:gsub("^%l+%.(%l+%.)", "%1")
        own = OWN.bedrock[name]
        if own then return own end
        if not name:find("^anthropic%.") then return nil end
        name = name:gsub("^anthropic%.", ""):gsub("%-v%d+:?%d*$", "")
    end
    name = name:gsub("^.*/", "")
    local facts = find(name)
    while not facts and name do
        name = shortened(name)
        facts = name and find(name)
    end
    return facts
end

return M
