/** What the compiler infers. These tests pass when they compile. */
import { type Config, Context, Effect, Layer, Schema, SchemaGetter, type Scope, Stream } from "effect"
import { Rpc, type RpcClient, RpcGroup, RpcMiddleware } from "effect/rpc"
import { HostFunctions, Synapse, type SynapseError, SynapseLive, SynapseRpc } from "effect-synapse"
import { describe, expectTypeOf, it } from "vitest"

class Cipher extends Context.Service<Cipher, { readonly decrypt: (text: string) => string }>()("test/Cipher") {}

class Other extends Synapse.Service<Other>()("test/Other") {}

describe("the compiler", () => {
  it("infers the result from the schema", () => {
    const Summary = Schema.Struct({ mean: Schema.Finite, tags: Schema.optionalKey(Schema.Array(Schema.String)) })
    expectTypeOf(Synapse.call(Summary, {})).toEqualTypeOf<
      Effect.Effect<
        { readonly mean: number; readonly tags?: ReadonlyArray<string> },
        SynapseError.SynapseError,
        Synapse.Synapse
      >
    >()
    expectTypeOf(Synapse.call(Schema.DateTimeUtc, {})).toEqualTypeOf<
      Effect.Effect<typeof Schema.DateTimeUtc.Type, SynapseError.SynapseError, Synapse.Synapse>
    >()
  })

  it("asks for the services that decoding needs", () => {
    const Secret = Schema.String.pipe(
      Schema.decodeTo(Schema.String, {
        decode: SchemaGetter.transformEffect((text: string) => Cipher.useSync((cipher) => cipher.decrypt(text))),
        encode: SchemaGetter.passthrough()
      })
    )
    expectTypeOf(Synapse.call(Secret, {})).toEqualTypeOf<
      Effect.Effect<string, SynapseError.SynapseError, Synapse.Synapse | Cipher>
    >()
  })

  it("checks the input against the payload schema", () => {
    const payload = Schema.Struct({ text: Schema.String })
    Synapse.call(Schema.Int, { text: "hi" }, { payload })
    // @ts-expect-error a number is not a string
    Synapse.call(Schema.Int, { text: 1 }, { payload })
  })

  it("takes any input without one", () => {
    Synapse.call(Schema.Int, 1)
    Synapse.call(Schema.Int, { anything: new Map([[1, new Uint8Array()]]) }, { method: "main" })
  })

  it("invents no requirements, whatever a call is part of", () => {
    expectTypeOf(Effect.all([Synapse.call(Schema.Int, 1), Other.call(Schema.String, 1)])).toEqualTypeOf<
      Effect.Effect<[number, string], SynapseError.SynapseError, Synapse.Synapse | Other>
    >()
  })

  it("asks for the services of streams in the input, of progress and of host functions", () => {
    const texts = Stream.fromEffect(Cipher.useSync((cipher) => cipher.decrypt("")))
    expectTypeOf(Synapse.call(Schema.Int, { texts, n: 1 })).toEqualTypeOf<
      Effect.Effect<number, SynapseError.SynapseError, Synapse.Synapse | Cipher>
    >()
    expectTypeOf(Synapse.stream(Schema.Int, texts)).toEqualTypeOf<
      Stream.Stream<number, SynapseError.SynapseError, Synapse.Synapse | Cipher>
    >()
    const progress = Synapse.onProgress(Schema.String, (text) => Cipher.useSync((cipher) => cipher.decrypt(text)))
    expectTypeOf(Synapse.call(Schema.Int, 1, { progress })).toEqualTypeOf<
      Effect.Effect<number, SynapseError.SynapseError, Synapse.Synapse | Cipher>
    >()
    const host = HostFunctions.make(RpcGroup.make(Rpc.make("decrypt", { success: Schema.String })), {
      decrypt: () => Cipher.useSync((cipher) => cipher.decrypt(""))
    })
    expectTypeOf(Synapse.layer({ directory: ".", host })).toEqualTypeOf<
      Layer.Layer<Synapse.Synapse, SynapseError.SynapseError, Cipher>
    >()
  })

  it("finds the services of streams that may be there, and takes what it does not know for none", () => {
    const texts = Stream.fromEffect(Cipher.useSync((cipher) => cipher.decrypt("")))
    type Texts = typeof texts
    type Services<In> = Synapse.InputServices<In>
    expectTypeOf<Services<{ texts?: Texts }>>().toEqualTypeOf<Cipher>()
    expectTypeOf<Services<{ texts: Texts | ReadonlyArray<string> | undefined }>>().toEqualTypeOf<Cipher>()
    expectTypeOf<Services<Texts | { n: number }>>().toEqualTypeOf<Cipher>()
    // biome-ignore lint/suspicious/noExplicitAny: what JSON.parse gives
    expectTypeOf<Services<{ data: any }>>().toEqualTypeOf<never>()
    expectTypeOf<Services<{ data: unknown }>>().toEqualTypeOf<never>()
  })

  it("lets host functions use the runtime they are for", () => {
    const host = HostFunctions.make(RpcGroup.make(Rpc.make("again", { success: Schema.Int })), {
      again: () => Effect.orDie(Synapse.call(Schema.Int, 1))
    })
    expectTypeOf(Synapse.layer({ directory: ".", host })).toEqualTypeOf<
      Layer.Layer<Synapse.Synapse, SynapseError.SynapseError>
    >()
  })

  it("keeps runtimes apart", () => {
    expectTypeOf(Other.call(Schema.Int, 1)).toEqualTypeOf<Effect.Effect<number, SynapseError.SynapseError, Other>>()
    expectTypeOf(Other.layer({ directory: "." })).toEqualTypeOf<Layer.Layer<Other, SynapseError.SynapseError>>()
  })

  it("needs nothing beside SynapseLive", () => {
    expectTypeOf(SynapseLive).toEqualTypeOf<
      Layer.Layer<Synapse.Synapse, SynapseError.SynapseError | Config.ConfigError>
    >()
    expectTypeOf(Effect.provide(Synapse.call(Schema.Int, 1), SynapseLive)).toEqualTypeOf<
      Effect.Effect<number, SynapseError.SynapseError | Config.ConfigError>
    >()
  })

  it("knows every reason", () => {
    const handled = Synapse.call(Schema.Int, 1).pipe(
      Effect.catchReason("SynapseError", "CallTimeout", (reason) => {
        expectTypeOf(reason).toEqualTypeOf<SynapseError.CallTimeout>()
        return Effect.succeed(reason.durationMillis)
      })
    )
    expectTypeOf(handled).toEqualTypeOf<Effect.Effect<number, SynapseError.SynapseError, Synapse.Synapse>>()
    // @ts-expect-error there is no such reason
    Effect.catchReason(Synapse.call(Schema.Int, 1), "SynapseError", "Nope", () => Effect.void)
  })

  it("wants the directory", () => {
    // @ts-expect-error directory is missing
    Synapse.layer({})
  })

  it("knows what the RPCs of a group take, give and fail with", () => {
    class TooLong extends Schema.TaggedError<TooLong>()("TooLong", { limit: Schema.Int }) {}
    const group = RpcGroup.make(
      Rpc.make("embed", { payload: { text: Schema.String }, success: Schema.Array(Schema.Finite), error: TooLong }),
      Rpc.make("words", { success: Schema.String, error: TooLong, stream: true })
    )
    const made = SynapseRpc.client(group)
    expectTypeOf(made).toEqualTypeOf<
      Effect.Effect<SynapseRpc.Client<typeof group>, never, Synapse.Synapse | Scope.Scope>
    >()
    Effect.map(made, (python) => {
      expectTypeOf(python.embed({ text: "hi" })).toEqualTypeOf<
        Effect.Effect<ReadonlyArray<number>, TooLong | SynapseError.SynapseError>
      >()
      expectTypeOf(python.embed({ text: "hi" }, { discard: true })).toEqualTypeOf<
        Effect.Effect<void, SynapseError.SynapseError>
      >()
      expectTypeOf(python.words()).toEqualTypeOf<Stream.Stream<string, TooLong | SynapseError.SynapseError>>()
      expectTypeOf(python.words().pipe(SynapseRpc.withOptions({ timeout: 1 }))).toEqualTypeOf<
        Stream.Stream<string, TooLong | SynapseError.SynapseError>
      >()
      expectTypeOf(python.embed({ text: "hi" }).pipe(SynapseRpc.withOptions({ affinity: "a" }))).toEqualTypeOf<
        Effect.Effect<ReadonlyArray<number>, TooLong | SynapseError.SynapseError>
      >()
      // @ts-expect-error a number is not a string
      python.embed({ text: 1 })
      // @ts-expect-error an RPC has its method already
      python.words().pipe(SynapseRpc.withOptions({ method: "other" }))
    })
  })

  it("knows which runtime serves a group, and what its middleware needs", () => {
    class Auth extends RpcMiddleware.Service<Auth>()("test/Auth", { requiredForClient: true }) {}
    const group = RpcGroup.make(Rpc.make("one", { success: Schema.Int })).middleware(Auth)
    expectTypeOf(SynapseRpc.client(group, { runtime: Other, flatten: true })).toEqualTypeOf<
      Effect.Effect<
        RpcClient.RpcClient.Flat<RpcGroup.Rpcs<typeof group>, SynapseError.SynapseError>,
        never,
        Other | Scope.Scope | RpcMiddleware.ForClient<Auth>
      >
    >()
    expectTypeOf(SynapseRpc.layerProtocol).toEqualTypeOf<Layer.Layer<RpcClient.Protocol, never, Synapse.Synapse>>()
    expectTypeOf(SynapseRpc.layerProtocolWith({ runtime: Other })).toEqualTypeOf<
      Layer.Layer<RpcClient.Protocol, never, Other>
    >()
    expectTypeOf(SynapseRpc.layerProtocolWith({ options: { timeout: 1 } })).toEqualTypeOf<
      Layer.Layer<RpcClient.Protocol, never, Synapse.Synapse>
    >()
    expectTypeOf(Layer.effectDiscard(SynapseRpc.client(RpcGroup.make(Rpc.make("one"))))).toEqualTypeOf<
      Layer.Layer<never, never, Synapse.Synapse>
    >()
  })

  it("takes handlers of Python for those of a group", () => {
    const group = RpcGroup.make(
      Rpc.make("one", { success: Schema.Int }),
      Rpc.make("many", { success: Schema.Int, stream: true })
    )
    expectTypeOf(group.toLayer(SynapseRpc.handlers(group))).toEqualTypeOf<
      Layer.Layer<Rpc.ToHandler<RpcGroup.Rpcs<typeof group>>, never, Synapse.Synapse>
    >()
  })
})
