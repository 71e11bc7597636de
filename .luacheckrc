std = "lua54"
max_line_length = 79
-- a method may have no use for its object
self = false
files["spec/lua"] = { std = "+busted" }
files["rockspec"] = {
  std = "+rockspec",
}
files[".luacheckrc"] = { std = "+luacheckrc" }
