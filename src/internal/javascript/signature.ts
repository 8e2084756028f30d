/**
 * Signed modules: `source | 128 bytes that name the format, filled up with zeros | 64 bytes of an ed25519 signature of all
 * before`. Keys are hexadecimal: 32 bytes of a public key; a private key is its 32 bytes followed by those of the public one.
 *
 * @internal
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign as signBytes,
  verify as verifyBytes
} from "node:crypto"

const formatSize = 128
const signatureSize = 64
const format = Buffer.alloc(formatSize)
format.write("synapse javascript module 1")

/** @internal */
export class SignatureError extends Error {}

const keyBytes = (text: string, size: number, what: string): Buffer => {
  const key = text.trim()
  if (!new RegExp(`^[0-9a-f]{${2 * size}}$`, "i").test(key)) {
    throw new SignatureError(`the ${what} is not ${size} bytes in hexadecimal`)
  }
  return Buffer.from(key, "hex")
}

const jwk = { kty: "OKP", crv: "Ed25519" }

const publicKeyOf = (text: string) => {
  const x = keyBytes(text, 32, "public key").toString("base64url")
  return createPublicKey({ key: { ...jwk, x }, format: "jwk" })
}

/** @internal */
export const generateKeys = (): { readonly publicKey: string; readonly privateKey: string } => {
  const { privateKey } = generateKeyPairSync("ed25519")
  const { d, x } = privateKey.export({ format: "jwk" })
  const [secret, open] = [Buffer.from(d!, "base64url"), Buffer.from(x!, "base64url")]
  return { publicKey: open.toString("hex"), privateKey: Buffer.concat([secret, open]).toString("hex") }
}

/** @internal */
export const sign = (source: Buffer, privateKey: string): Buffer => {
  const bytes = keyBytes(privateKey, 64, "private key")
  const [d, x] = [bytes.subarray(0, 32).toString("base64url"), bytes.subarray(32).toString("base64url")]
  const signed = Buffer.concat([source, format])
  const key = createPrivateKey({ key: { ...jwk, d, x }, format: "jwk" })
  return Buffer.concat([signed, signBytes(null, signed, key)])
}

/**
 * Whether a file says that it is signed, rightly or not.
 *
 * @internal
 */
export const isSigned = (file: Buffer): boolean =>
  formatOf(file).toString("latin1").startsWith("synapse javascript module")

const formatOf = (file: Buffer): Buffer =>
  file.subarray(Math.max(0, file.length - signatureSize - formatSize), Math.max(0, file.length - signatureSize))

/**
 * The source of a signed module; throws a `SignatureError` when it is not what the owner of the key has signed.
 *
 * @internal
 */
export const verify = (file: Buffer, publicKey: string): Buffer => {
  const key = publicKeyOf(publicKey)
  if (file.length < formatSize + signatureSize) throw new SignatureError("the module is too short to be signed")
  if (!isSigned(file)) throw new SignatureError("the module is not signed: sign it, or start without a public key")
  if (!formatOf(file).equals(format)) {
    throw new SignatureError("the module was signed for another version of Synapse: sign it again")
  }
  const signed = file.subarray(0, -signatureSize)
  if (!verifyBytes(null, signed, key, file.subarray(-signatureSize))) {
    throw new SignatureError("the signature of the module does not fit: it was changed, or signed with another key")
  }
  return file.subarray(0, -signatureSize - formatSize)
}
