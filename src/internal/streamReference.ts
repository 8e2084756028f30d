/**
 * What a payload holds in the place of an input stream: extension 2 with the stream's id.
 *
 * The id belongs to a connection and is given when the call is sent there, which is before the payload is encoded; a call
 * that is sent again gets another.
 */
export class StreamReference {
  id = 0
}
