/** A part of a contract as text: two that are written alike are the same. */

import type { Contract, Definition, Type } from "../Contract.ts"

/** @internal */
export const contractText = (part: Type | Definition | Contract): string =>
  JSON.stringify(part, (_key, value) => (typeof value === "bigint" ? `${value}n` : value))
