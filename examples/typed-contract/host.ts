// What Python may call. `python/host.py` is generated from it: see app.ts.
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

export class UnknownCurrency extends Schema.TaggedError<UnknownCurrency>()("UnknownCurrency", {
  currency: Schema.String
}) {}

export class Bank extends RpcGroup.make(
  Rpc.make("exchangeRate", {
    payload: { currency: Schema.String },
    success: Schema.BigDecimal,
    error: UnknownCurrency
  })
) {}
