/** The RpcGroups that a TypeScript module of the user exports. */
import { existsSync } from "node:fs"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import { badUsage, Failure } from "./failure.ts"
import { shownPath } from "./shell.ts"

/** @internal */
export interface Groups {
  /** What Python serves. Nothing where it only calls. */
  readonly group: RpcGroup.Any | undefined
  /** What Python may call. */
  readonly host: RpcGroup.Any | undefined
}

interface Exported {
  readonly name: string
  readonly group: RpcGroup.Any
}

/** A class that extends a group is one, too. The group itself has nothing at run time that names it. */
const isGroup = (value: unknown): value is RpcGroup.Any =>
  Predicate.hasProperty(value, "requests") &&
  Predicate.hasProperty(value, "toLayerHandler") &&
  value.requests instanceof Map &&
  Array.from(value.requests.values()).every(Rpc.isRpc)

/** @internal */
export interface Names {
  readonly group: string | undefined
  readonly host: string | undefined
}

/** Imports the module, which runs it, and finds the groups of these names; of the one that is not named, the only one left. */
export const loadGroups = Effect.fnUntraced(function* (file: string, names: Names) {
  const exported = yield* load(file)
  const pick = (name: string, flag: string): Effect.Effect<RpcGroup.Any, Failure> => {
    const found = exported.find((each) => each.name === name)
    return found === undefined
      ? Effect.fail(badUsage(`${flag} ${name}: ${shownPath(file)} exports ${listed(exported)}.`))
      : Effect.succeed(found.group)
  }
  const host = names.host === undefined ? undefined : yield* pick(names.host, "--host")
  if (names.group !== undefined) {
    return { group: yield* pick(names.group, "--group"), host } satisfies Groups as Groups
  }
  const others = exported.filter(({ name }) => name !== names.host)
  if (others.length === 1 || (others.length === 0 && host !== undefined)) {
    return { group: others[0]?.group, host } satisfies Groups as Groups
  }
  return yield* Effect.fail(
    badUsage(
      others.length === 0
        ? `${shownPath(file)} exports no RpcGroup: export the one that Python serves.`
        : `${shownPath(file)} exports ${listed(others)}: say with --group which of them Python serves, and with --host which it calls.`
    )
  )
})

const listed = (groups: ReadonlyArray<Exported>): string =>
  groups.length === 0 ? "no RpcGroup" : `the RpcGroups ${groups.map(({ name }) => name).join(", ")}`

const load = (file: string): Effect.Effect<ReadonlyArray<Exported>, Failure> =>
  existsSync(file)
    ? Effect.tryPromise({
        try: () => import(pathToFileURL(file).href) as Promise<Readonly<Record<string, unknown>>>,
        catch: (error) => new Failure(`${shownPath(file)} cannot be loaded: ${whyNot(error)}`)
      }).pipe(
        Effect.map((module) =>
          Object.entries(module).flatMap(([name, value]) => (isGroup(value) ? [{ name, group: value }] : []))
        )
      )
    : Effect.fail(badUsage(`The file ${shownPath(file)} does not exist.`))

const whyNot = (error: unknown): string => {
  const { code, message } = error as NodeJS.ErrnoException
  return code === "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX"
    ? `${message}. Node takes only TypeScript whose types can be erased: see erasableSyntaxOnly in tsconfig.json`
    : String(message ?? error)
}
