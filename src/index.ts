/**
 * Run Python from TypeScript.
 *
 * @since 0.1.0
 */
export * as Connection from "./Connection.ts"
export * as Contract from "./Contract.ts"
export * as Controller from "./Controller.ts"
export * as Envelope from "./Envelope.ts"
export * as HostFunctions from "./HostFunctions.ts"
export * as NdArray from "./NdArray.ts"
export * as PythonEnvironment from "./PythonEnvironment.ts"
export * as PythonProcess from "./PythonProcess.ts"
export * as PythonTime from "./PythonTime.ts"
export * as RemoteObject from "./RemoteObject.ts"
export * as SchemaMsgpack from "./SchemaMsgpack.ts"
export * as Synapse from "./Synapse.ts"
export { SynapseLive } from "./Synapse.ts"
export * as SynapseError from "./SynapseError.ts"
export * as SynapseRpc from "./SynapseRpc.ts"
export * as WorkerPool from "./WorkerPool.ts"
