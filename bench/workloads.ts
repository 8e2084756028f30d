/** What is measured, as data: each workload with its rows, in the order of the page. */
import type { Calls, Payload, Task } from "./harness/contender.ts"
import type { FigureName } from "./harness/figures.ts"

export interface Row {
  readonly id: string
  readonly contender: string
  /** Beside the contender's label, where it has several rows. */
  readonly variant?: string | undefined
  readonly task: Task
  /** Beside the contender's own. Rows of one contender with the same settings share its process. */
  readonly settings?: Readonly<Record<string, unknown>> | undefined
}

export interface Workload {
  readonly name: string
  readonly title: string
  /** What is compared. */
  readonly figure: FigureName
  readonly rows: ReadonlyArray<Row>
  readonly rounds: number
  /** How long a row's calls go on before the first round, for both sides to compile what they run. */
  readonly warmUpMillis: number
  /** Whether every round has a new process: what is measured happens once in the life of one. */
  readonly fresh?: boolean | undefined
}

/** How long it all takes. */
export interface Scale {
  readonly millis: number
  readonly warmUpMillis: number
  readonly rounds: number
  readonly items: number
  readonly calls: number
}

export const full: Scale = { millis: 300, warmUpMillis: 1000, rounds: 9, items: 1_000_000, calls: 1_000_000 }
export const quick: Scale = { millis: 100, warmUpMillis: 400, rounds: 3, items: 100_000, calls: 100_000 }

const peers = [
  "hq-synapse",
  "python-shell",
  "pythonia",
  "node-calls-python",
  "node-calls-python-sync",
  "zerorpc",
  "grpc",
  "http-json",
  "http-json-fetch"
]
/** Those that have no way to have two calls open would only repeat themselves. */
const peersInFlight = peers.filter((name) => name !== "node-calls-python-sync")

const throughRpc = ["effect-rpc", "effect-rpc-binary", "synapse", "synapse-rpc", "synapse-rpc-protocol"]

const small: Payload = { kind: "small" }
const kilo = 1000
const mega = 1000 * 1000

export const workloadsAt = (scale: Scale): ReadonlyArray<Workload> =>
  describe(scale).map((workload) => ({ ...workload, warmUpMillis: scale.warmUpMillis }))

type Described = Omit<Workload, "warmUpMillis">

const describe = ({ calls: manyCalls, items: manyItems, millis, rounds }: Scale): ReadonlyArray<Described> => {
  const calls = (payload: Payload, inFlight = 1, handler?: Calls["handler"]): Calls => ({
    name: "calls",
    payload,
    inFlight,
    millis,
    handler
  })
  const row = (contender: string, task: Task, rest: Partial<Row> = {}): Row => ({
    id: contender,
    contender,
    task,
    ...rest
  })
  const rowsOf = (names: ReadonlyArray<string>, task: Task, rest: Partial<Row> = {}): ReadonlyArray<Row> =>
    names.map((name) => row(name, task, rest))
  /** A further row of a contender. */
  const variant = (contender: string, variant: string, task: Task, rest: Partial<Row> = {}): Row =>
    row(contender, task, { id: `${contender}, ${variant}`, variant, ...rest })

  const few = Math.min(rounds, 5)

  const inFlight: Described = {
    name: "in-flight",
    title: "Many calls of a small map at once, 64 unless said",
    figure: "rate",
    rounds,
    rows: [
      row("floor", calls(small, 64)),
      row("synapse", calls(small, 64)),
      ...[8, 512].map((count) => variant("synapse", `${count} at once`, calls(small, count))),
      // Long enough for each of its callers to make some calls.
      variant("synapse", "10000 at once", { ...calls(small, 10_000), millis: 4 * millis }),
      variant("synapse", "async handler", calls(small, 64, "async"), { settings: { module: "async" } }),
      variant("synapse", "async beside sync", calls(small, 64, "async")),
      row("synapse-no-polling", calls(small, 64)),
      ...rowsOf(peersInFlight, calls(small, 64))
    ]
  }

  const ofBytes = (name: string, size: number, names: ReadonlyArray<string>, count: number): Described => ({
    name,
    title: `${inWords(size)} of bytes there and back`,
    figure: "p50",
    rounds: count,
    rows: rowsOf(names, calls({ kind: "bytes", size }), size > 8 * mega ? roomy : {})
  })

  const ofArrays = (name: string, size: number, others: ReadonlyArray<string>, count: number): Described => {
    const settings = { module: "arrays", ...(size > 8 * mega ? roomy.settings : {}) }
    const task = calls({ kind: "array", size })
    return {
      name,
      title: `A float64 array of ${inWords(size)} there and back`,
      figure: "p50",
      rounds: count,
      rows: [
        row("floor", task),
        ...rowsOf(["synapse", "synapse-channel", "synapse-in-place"], task, { settings }),
        variant("synapse", "made in Python", calls({ kind: "array", size }, 1, "fresh"), { settings }),
        ...rowsOf(others, task)
      ]
    }
  }

  return [
    {
      name: "sequential",
      title: "One call of a small map at a time",
      figure: "p50",
      rounds,
      rows: rowsOf(["floor", "synapse", "synapse-no-polling", ...peers], calls(small))
    },
    inFlight,
    {
      name: "record",
      title: "One record of 1 KB at a time, all of it in the schema",
      figure: "p50",
      rounds,
      rows: rowsOf(["synapse", "hq-synapse", "python-shell", "http-json"], calls({ kind: "record" }))
    },
    {
      name: "rows",
      title: "100 KB of rows at a time, all of it in the schema",
      figure: "p50",
      rounds,
      rows: rowsOf(["synapse", "hq-synapse", "python-shell", "http-json"], calls({ kind: "rows" }))
    },
    ofBytes("bytes-1mb", mega, ["floor", "synapse", ...peers], rounds),
    ofBytes("bytes-64mb", 64 * mega, ["floor", "synapse"], few),
    ofArrays("array-8kb", 8 * kilo, [], rounds),
    ofArrays("array-80kb", 80 * kilo, [], rounds),
    ofArrays("array-800kb", 800 * kilo, [], rounds),
    ofArrays("array-8mb", 8 * mega, peers, rounds),
    ofArrays("array-80mb", 80 * mega, [], few),
    {
      name: "stream",
      title: `A stream of ${manyItems.toLocaleString("en")} small items`,
      figure: "rate",
      rounds: few,
      rows: [
        row("synapse", { name: "items", direction: "out", handler: "sync", count: manyItems }),
        variant("synapse", "async generator", { name: "items", direction: "out", handler: "async", count: manyItems }),
        variant("synapse", "to Python", { name: "items", direction: "in", handler: "sync", count: manyItems / 5 }),
        variant("synapse", "to Python, async", {
          name: "items",
          direction: "in",
          handler: "async",
          count: manyItems / 5
        })
      ]
    },
    {
      name: "host",
      title: "Calls of Python to functions in Node",
      figure: "perCall",
      rounds: few,
      rows: [
        row("synapse", { name: "hostCalls", inFlight: 1, count: manyCalls / 200 }),
        variant("synapse", "64 at once", { name: "hostCalls", inFlight: 64, count: manyCalls / 50 })
      ]
    },
    {
      name: "rpc",
      title: "Through RPC, one call of a small map at a time",
      figure: "p50",
      rounds,
      rows: rowsOf(throughRpc, calls(small))
    },
    {
      name: "rpc-in-flight",
      title: "Through RPC, 64 calls of a small map at once",
      figure: "rate",
      rounds,
      rows: rowsOf(throughRpc, calls(small, 64))
    },
    {
      name: "start-warm",
      title: "From nothing to the first reply, with the environment there",
      figure: "millis",
      rounds: few,
      fresh: true,
      rows: rowsOf(["synapse", "synapse-no-polling", ...peersInFlight], { name: "start" })
    },
    {
      name: "start-cold",
      title: "From nothing to the first reply, with no environment yet",
      figure: "millis",
      rounds: Math.min(rounds, 3),
      fresh: true,
      rows: [row("synapse", { name: "start" }, { settings: { coldCache: true } })]
    },
    {
      name: "replacement",
      title: "From SIGKILL of the worker to the next reply",
      figure: "millis",
      rounds: few,
      fresh: true,
      rows: [row("synapse", { name: "replacement" })]
    },
    {
      name: "memory",
      title: `What an idle worker holds, and how much more after ${manyCalls.toLocaleString("en")} calls`,
      figure: "resident",
      rounds: 1,
      fresh: true,
      rows: rowsOf(["synapse", "synapse-no-polling"], { name: "memory", calls: manyCalls })
    },
    {
      name: "workers",
      title: "A call as the workers become more, 64 at once for each",
      figure: "perCall",
      rounds: few,
      rows: [
        ...[1, 2, 4, 8, 16, 32].map((workers) =>
          row("synapse", calls(small, 64 * workers), {
            id: `synapse, ${workers}`,
            variant: workers === 1 ? "1 worker" : `${workers} workers`,
            settings: { workers }
          })
        ),
        // What more processes cost by themselves.
        ...[1, 16, 32].map((processes) =>
          row("floor", calls(small, 64 * processes), {
            id: `floor, ${processes}`,
            variant: processes === 1 ? "1 process" : `${processes} processes`,
            settings: { processes }
          })
        )
      ]
    }
  ]
}

/** For messages beyond the largest that is taken by default. */
const roomy: Partial<Row> = { settings: { maxFrameSize: 256 * 1024 * 1024 } }

const inWords = (size: number): string => (size < mega ? `${size / kilo} KB` : `${size / mega} MB`)
