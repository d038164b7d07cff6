-- Its paths carry no version: /chat/completions stands right below the base URL.
return { auth = { header = "authorization", prefix = "Bearer " }, keep_v1 = false }
