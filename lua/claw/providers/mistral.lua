-- Usage comes with a stream's last chunk without being asked for, and fields it does not know are refused. Ids of calls
-- have nine letters or digits.
return require("claw.providers.compatible")({
    stream_usage = false, tool_id_length = 9, document_url = true,
    lacks = { user = true, store = true, service_tier = true, verbosity = true, logit_bias = true, logprobs = true,
        top_logprobs = true, seed = true },
})
