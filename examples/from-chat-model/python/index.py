from router import Router

if __name__ == "__main__":
    Router().run()
