-- The requests that wrk sends: the callbacks of try-on tasks, each task three times, from a file of tasks.
--
-- The file: a line for each status with its body ("@" stands for the task's id), an empty line,
-- then "<task> <token>" lines. Each thread takes its own share of the tasks. The three callbacks
-- of a task are sent BENCH_LAG steps apart, so that they never overtake each other.

local threads = {}

function setup(thread)
  thread:set("share", #threads)
  table.insert(threads, thread)
end

local function read(path, share, shares)
  local bodies, tasks, number, in_tasks = {}, {}, 0, false
  for line in io.lines(path) do
    if line == "" then
      in_tasks = true
    elseif in_tasks then
      if number % shares == share then
        local task, token = line:match("^(%S+) (%S+)$")
        tasks[#tasks + 1] = { task, token }
      end
      number = number + 1
    else
      bodies[#bodies + 1] = line
    end
  end
  return bodies, tasks
end

function init()
  local bodies
  prefix = os.getenv("BENCH_PREFIX") or ""
  fixed = os.getenv("BENCH_REQUEST")  -- something else than callbacks
  if fixed then
    fixed = fixed:gsub("\\r\\n", "\r\n")
    return
  end
  lag = tonumber(os.getenv("BENCH_LAG"))
  only_last = os.getenv("BENCH_DUPLICATES") == "1"
  bodies, tasks = read(os.getenv("BENCH_TASKS"), share, tonumber(os.getenv("BENCH_THREADS")))
  heads, tails = {}, {}
  for turn, body in ipairs(bodies) do
    heads[turn], tails[turn] = body:match("^(.-)@(.*)$")
  end
  sent, wrapped = 0, 0
end

local function callback(task, turn)
  local id, token = task[1], task[2]
  local length = #heads[turn] + #id + #tails[turn]
  return "POST " .. prefix .. "/callbacks/kling/" .. id .. "/" .. token .. " HTTP/1.1\r\n"
    .. "Host: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\n"
    .. "Accept-Encoding: gzip\r\nContent-Length: " .. length .. "\r\n\r\n"
    .. heads[turn] .. id .. tails[turn]
end

function request()
  if fixed then
    return fixed
  end
  local step, turn = math.floor(sent / 3), sent % 3
  if only_last then
    step, turn = sent, 2
  elseif step >= #tasks - 2 * lag then
    wrapped = 1
  end
  sent = sent + 1
  local at = only_last and step or step - turn * lag
  return callback(tasks[at % #tasks + 1], turn + 1)
end

function done(summary, latency)
  local again = 0
  for _, thread in ipairs(threads) do
    again = math.max(again, tonumber(thread:get("wrapped")) or 0)
  end
  local errors = summary.errors
  io.write(string.format(
    '\nBENCH {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, '
      .. '"refused": %d, "broken": %d, "repeated": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, errors.status, errors.connect + errors.read + errors.write
      + errors.timeout, again))
end
