return { auth = { header = "authorization", prefix = "Bearer " } }
